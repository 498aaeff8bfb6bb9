#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn documents_lists_and_comments() {
    let text = "# a file\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n- {apiVersion: v1, kind: Secret}\n";
    let documents = parse(text).unwrap();
    let kinds: Vec<&str> = documents.iter().map(|d| meta::kind(&d.object)).collect();
    assert_eq!(kinds, ["Pod", "Pod", "Secret"]);
    assert_eq!((documents[0].index, documents[0].line), (1, 3));
    assert_eq!(documents[1].line, 9);
    assert_eq!(documents[0].resource().unwrap().plural, "pods");
}

#[test]
fn errors_name_the_document_and_the_line() {
    let broken = "apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: [\n";
    let error = parse(broken).unwrap_err().to_string();
    assert!(error.starts_with("document 2 (line "), "{error}");
    let error = parse("kind: Pod\n").unwrap_err().to_string();
    assert_eq!(error, "document 1 (line 1): apiVersion: apiVersion not set");
    let documents = parse("apiVersion: v1\nkind: Nope\n").unwrap();
    assert_eq!(
        documents[0].resource().unwrap_err().to_string(),
        "document 1 (line 1): kind: no matches for kind \"Nope\" in version \"v1\""
    );
    assert_eq!(parse("# nothing\n"), Err(Error::Empty));
}

#[test]
fn json_is_yaml() {
    let documents = parse("{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}").unwrap();
    assert_eq!(documents[0].object["kind"], "Pod");
}

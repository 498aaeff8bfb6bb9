//! Manifests that are wrong, through kubectl: the right words, the right exit code, and nothing made of them.

use crate::fixture::Node;

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: sampan.local/toolbox, command: [echo, x]}}\n{more}"
    )
}

#[test]
fn wrong_manifests_are_refused_with_upstreams_words() {
    let node = Node::start();
    // A wrong type.
    let wrong = pod("a", "").replace(
        "  containers:\n  - {name: c, image: sampan.local/toolbox, command: [echo, x]}",
        "  containers: none",
    );
    let said = node.with_manifest(&["create"], &wrong).fails();
    assert!(said.contains("Error from server (BadRequest): error when creating") && said.contains("Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"), "{said}");
    // An unknown kind.
    let said = node.with_manifest(&["apply"], "apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n").fails();
    assert!(
        said.contains("no matches for kind \"Pood\" in version \"v1\"")
            && said.contains("ensure CRDs are installed first"),
        "{said}"
    );
    // An unknown field: refused, warned of, or let through, as asked.
    let unknown = pod("u", "  colour: red\n");
    let said = node.with_manifest(&["apply"], &unknown).fails();
    assert!(said.contains("strict decoding error: unknown field \"spec.colour\""), "{said}");
    let said = node.with_manifest(&["create", "--validate=warn"], &unknown);
    assert!(said.err.contains("Warning: unknown field \"spec.colour\""), "{}", said.err);
    assert_eq!(said.ok(), "pod/u created\n");
    let said = node.with_manifest(&["create", "--validate=ignore"], &unknown.replace("name: u}", "name: v}"));
    assert_eq!((said.err.as_str(), said.out.as_str()), ("", "pod/v created\n"));
    // A duplicate field, which kubectl's own reader of YAML would swallow.
    let duplicate = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"d"},"spec":{"nodeName":"a","nodeName":"b","containers":[]}}"#;
    let said = node.with_manifest(
        &["create", "--raw", "/api/v1/namespaces/default/pods?fieldValidation=Strict"],
        duplicate,
    );
    let said = said.fails();
    assert!(said.contains("duplicate field \"spec.nodeName\""), "{said}");
    // Values that the schema allows and validation does not, all at once.
    let said = node
        .with_manifest(
            &["create"],
            &pod("Upper_Case", "").replace("image: sampan.local/toolbox", "image: ''"),
        )
        .fails();
    assert!(said.contains("The Pod \"Upper_Case\" is invalid"), "{said}");
    assert!(
        said.contains(
            "metadata.name: Invalid value: \"Upper_Case\": a lowercase RFC 1123 subdomain must consist of"
        ),
        "{said}"
    );
    assert!(said.contains("spec.containers[0].image: Required value"), "{said}");
    // Two documents, one broken: the good one is made, and the exit code says that not all were.
    let two = format!("{}---\n{}", pod("good", ""), pod("bad", "  restartPolicy2: x\n"));
    let said = node.with_manifest(&["apply"], &two);
    assert_eq!((said.code, said.out.as_str()), (1, "pod/good created\n"), "{}", said.err);
    let said = node.kubectl(&["get", "pods", "-o", "name"]).ok();
    assert_eq!(said, "pod/good\npod/u\npod/v\n");
    // Immutable fields.
    node.wait_for("pod/good", "{.status.phase}", "Succeeded");
    let said =
        node.kubectl(&["patch", "pod", "good", "-p", r#"{"spec":{"restartPolicy":"Always"}}"#]).fails();
    assert!(said.contains("pod updates may not change fields other than"), "{said}");
    // Nothing of this kind stops a server.
    let said = node.kubectl(&["create", "namespace", "x", "--dry-run=server", "-o", "name"]).ok();
    assert_eq!(said, "namespace/x\n");
}

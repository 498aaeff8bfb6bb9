//! Documents as tools write them, and documents meant to confuse.
#![allow(clippy::unwrap_used)]

use super::*;

const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn entry(platform: &str) -> String {
    format!(
        r#"{{"mediaType":"{}","digest":"{D}","size":{}{platform}}}"#,
        media_type::OCI_MANIFEST,
        platform.len()
    )
}

fn index(entries: &[&str]) -> Index {
    let entries: Vec<_> = entries.iter().map(|e| entry(e)).collect();
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    match Document::parse(text.as_bytes(), None).unwrap() {
        Document::Index(index) => index,
        Document::Manifest(_) => panic!("not an index"),
    }
}

#[test]
fn docker_and_oci_and_untyped_documents() {
    let body = format!(
        r#""schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[{{"digest":"{D}","size":3}}]"#
    );
    for text in [
        format!("{{{body}}}"),
        format!(r#"{{{body},"mediaType":"{}"}}"#, media_type::DOCKER_MANIFEST),
        format!(r#"{{{body},"mediaType":null,"annotations":null}}"#),
    ] {
        let Document::Manifest(m) =
            Document::parse(text.as_bytes(), Some("application/json; charset=utf-8")).unwrap()
        else {
            panic!("not a manifest")
        };
        assert_eq!(m.layers[0].size, 3);
    }
}

#[test]
fn schema_1_is_refused_with_advice() {
    for text in [r#"{"schemaVersion":1,"fsLayers":[]}"#, r#"{"schemaVersion":1,"config":{}}"#] {
        let error = Document::parse(text.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
    }
    let by_type = Document::parse(b"{}", Some("application/vnd.docker.distribution.manifest.v1+prettyjws"));
    assert!(matches!(by_type, Err(ManifestError::Schema1)));
}

#[test]
fn ambiguous_and_foreign_documents_are_refused() {
    let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{{"digest":"{D}","size":2}}}}"#);
    assert!(matches!(Document::parse(both.as_bytes(), None), Err(ManifestError::Ambiguous)));
    assert!(
        matches!(Document::parse(b"{}", Some("text/html")), Err(ManifestError::MediaType(t)) if t == "text/html")
    );
    for bad in [&b"[]"[..], b"\xff\xfe", b"", b"{\"schemaVersion\":2,\"manifests\":{}}"] {
        assert!(Document::parse(bad, None).is_err());
    }
}

#[test]
fn bounds() {
    let huge = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
    assert!(matches!(Document::parse(&huge, None), Err(ManifestError::TooLarge { .. })));
    let layer = format!(r#"{{"digest":"{D}","size":1}}"#);
    let layers = vec![layer.as_str(); 10_000].join(",");
    let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[{layers}]}}"#);
    let error = Document::parse(text.as_bytes(), None).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("the image has 10000 layers, a node mounts at most 498; build it again"),
        "{said}"
    );
    let diff_ids = vec![format!("\"{D}\""); MAX_LAYERS + 1].join(",");
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#);
    let error = ImageConfig::parse(config.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("the image has 499 layers"), "{error}");
}

#[test]
fn img_46_the_first_best_entry_is_selected() {
    let i = index(&[
        r#","platform":{"os":"linux","architecture":"386"}"#,
        r#","platform":{"os":"linux","architecture":"amd64"}"#,
        r#","platform":{"os":"linux","architecture":"amd64"} "#,
    ]);
    assert_eq!(i.select(&Platform::new("linux", "amd64")).unwrap(), &i.manifests[1]);
    assert_eq!(i.select(&Platform::new("linux", "386")).unwrap(), &i.manifests[0]);
}

#[test]
fn img_47_attestations_are_skipped_and_no_match_says_what_there_is() {
    let i = index(&[
        r#","platform":{"os":"unknown","architecture":"unknown"}"#,
        r#","platform":{"os":"linux","architecture":"s390x"}"#,
    ]);
    let error = i.select(&Platform::new("linux", "amd64")).unwrap_err().to_string();
    assert!(error.starts_with("no match for platform in manifest: not found"), "{error}");
    assert!(error.contains("linux/s390x") && !error.contains("unknown"), "{error}");
    assert!(index(&[""]).select(&Platform::host()).is_ok());
    assert!(index(&["", ""]).select(&Platform::host()).is_err());
}

#[test]
fn configs_with_nulls_everywhere() {
    let c = ImageConfig::parse(
        br#"{"architecture":null,"os":"linux","created":null,"history":null,
             "config":{"User":null,"Env":null,"Entrypoint":null,"Cmd":["a"],"Volumes":null,"Labels":null,
                       "WorkingDir":null,"StopSignal":null,"ExposedPorts":{"80/tcp":{}}},
             "rootfs":{"type":"layers","diff_ids":null}}"#,
    )
    .unwrap();
    assert_eq!(c.config.cmd, ["a"]);
    assert_eq!(c.platform.os, "linux");
    assert!(ImageConfig::parse(br#"{"config":null,"rootfs":null}"#).unwrap().rootfs.diff_ids.is_empty());
    assert!(ImageConfig::parse(b"{}").is_ok());
    assert!(ImageConfig::parse(b"null").is_err());
}

//! The fuzzers' entry points with seeded mutations of good documents: bounded, and the same every time.
#![allow(clippy::unwrap_used)]

use sampan_oci::fuzzing::{self, run};

const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn references() {
    run(
        fuzzing::reference,
        &["busybox", "h.io:5000/a/b-c__d:1.0@", "[::1]:5000/x:y", "linux/arm/v7", &format!("a/b@{D}")],
    );
}

#[test]
fn manifests_and_configurations() {
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[{{"digest":"{D}","size":3,"urls":["http://x"]}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{D}","size":3,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
    );
    run(fuzzing::manifest, &[&manifest, &index, r#"{"schemaVersion":1}"#]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Volumes":{{"/x":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
    );
    run(fuzzing::config, &[&config]);
}

#[test]
fn hosts_files() {
    run(
        fuzzing::hosts,
        &[
            "server = \"https://a\"\n[host.\"https://b/c\"]\n capabilities = [\"pull\", \"resolve\"]\n ca = [\"x\"]\n",
            "client = [[\"a\", \"b\"]]\ndial_timeout = \"3s\"\n[header]\n x = [\"1\"]\n",
        ],
    );
}

#[test]
fn challenges() {
    run(
        fuzzing::challenge,
        &[
            r#"Bearer realm="https://a/token",service="reg",scope="repository:a/b:pull,push""#,
            r#"Digest realm="a\"b", qop=auth, Basic realm="x", Bearer realm="c" , service=d"#,
        ],
    );
}

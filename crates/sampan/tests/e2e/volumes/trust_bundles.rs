//! ClusterTrustBundles: who may write them, and how their certificates come to pods.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use super::{SLEEP, image, pod, ready, sh, until};
use crate::fixture::{Node, Registry, eventually};

/// A certificate of an authority of its own, or of nobody who may sign.
fn certificate(is_ca: bool) -> String {
    let mut params = CertificateParams::new(vec![]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn bundle(name: &str, signer: Option<&str>, label: &str, certificates: &[&str]) -> Value {
    let mut spec = json!({"trustBundle": certificates.join("of some authority\n")});
    if let Some(signer) = signer {
        spec["signerName"] = json!(signer);
    }
    json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name, "labels": {"live": label}}, "spec": spec})
}

/// A shell command for the number of certificates in a file.
fn count(file: &str) -> String {
    format!("grep -c BEGIN /v/{file}; true")
}

#[test]
fn env_49_cluster_trust_bundles_are_files_that_follow_the_api() {
    let (registry, node) = (Registry::start(), Node::start());
    let [first, second, third] = [(); 3].map(|()| certificate(true));
    let source = |more: Value| {
        let mut source = json!({"path": "ca.pem"});
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"clusterTrustBundle": source})
    };
    let mut named = source(json!({"name": "plain"}));
    let mut maybe = source(json!({"name": "later", "optional": true}));
    let mut signed =
        source(json!({"signerName": "example.com/s", "labelSelector": {"matchLabels": {"live": "yes"}}}));
    for (source, path) in [(&mut named, "named"), (&mut maybe, "maybe"), (&mut signed, "deep/signed")] {
        source["clusterTrustBundle"]["path"] = json!(path);
    }
    let image = image(&registry);
    let volumes = json!([{"name": "v", "projected": {"sources": [named, maybe, signed]}}]);
    let all = pod("p", &image, SLEEP, &volumes, &json!([{"name": "v", "mountPath": "/v"}]));
    node.apply(&bundle("example.com:s:a", Some("example.com/s"), "yes", &[&first, &second]).to_string());
    node.apply(&bundle("example.com:s:b", Some("example.com/s"), "yes", &[&second]).to_string());
    node.apply(&bundle("example.com:s:c", Some("example.com/s"), "no", &[&third]).to_string());
    node.apply(&all.to_string());
    // It waits for the one that it names, and goes on when that comes.
    let text = "Warning MountVolume.SetUp failed for volume \"v\" : clustertrustbundle.certificates.k8s.io \"plain\" not found";
    node.wait_for_event("p", "FailedMount", text);
    node.apply(&bundle("plain", None, "", &[&first]).to_string());
    ready(&node, "p");
    assert_eq!(sh(&node, "p", "cat /v/named").replace('\r', ""), first.replace('\r', ""));
    assert_eq!(sh(&node, "p", "wc -c < /v/maybe").trim(), "0");
    let signed = sh(&node, "p", "cat /v/deep/signed");
    assert_eq!(signed.matches("BEGIN CERTIFICATE").count(), 2, "each once: {signed}");
    // What changes, comes and goes.
    node.apply(&bundle("plain", None, "", &[&second, &third]).to_string());
    until(&node, "p", &count("named"), "2");
    node.apply(&bundle("later", None, "", &[&first]).to_string());
    until(&node, "p", &count("maybe"), "1");
    node.kubectl(&["label", "clustertrustbundle", "example.com:s:c", "live=yes", "--overwrite"]).ok();
    until(&node, "p", &count("deep/signed"), "3");
    node.kubectl(&["delete", "clustertrustbundle", "later"]).ok();
    until(&node, "p", &count("maybe"), "0");
    let shown = node.kubectl(&["get", "clustertrustbundles"]).ok();
    assert!(
        shown.lines().next().is_some_and(|line| line.starts_with("NAME") && line.contains("SIGNERNAME")),
        "{shown}"
    );
    assert!(shown.contains("example.com/s") && shown.contains("<none>"), "{shown}");
    let found = node.kubectl(&[
        "get",
        "clustertrustbundles",
        "--field-selector",
        "spec.signerName=example.com/s",
        "-o",
        "name",
    ]);
    assert_eq!(found.ok().lines().count(), 3);
    // A signer without bundles.
    let none = json!([{"name": "v", "projected": {"sources": [source(json!({"signerName": "example.com/other", "labelSelector": {}}))]}}]);
    node.apply(&pod("none", &image, "true", &none, &json!([])).to_string());
    let text = "Warning MountVolume.SetUp failed for volume \"v\" : combination of signerName and labelSelector matched zero ClusterTrustBundles";
    node.wait_for_event("none", "FailedMount", text);
}

#[test]
fn env_49_bundles_that_say_something_wrong_are_refused() {
    let node = Node::start();
    let (good, leaf) = (certificate(true), certificate(false));
    let refused = |bundle: Value| node.with_manifest(&["create"], &bundle.to_string()).fails();
    let junk = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
    let key = good.replace("CERTIFICATE", "PRIVATE KEY");
    for (bundle, text) in [
        (bundle("b", None, "", &[]), "at least one trust anchor must be provided"),
        (bundle("b", None, "", &[&good, &good]), "duplicate trust anchor (indices [0 1])"),
        (bundle("b", None, "", &[&good, &leaf]), "entry 1 does not have the CA bit set"),
        (bundle("b", None, "", &[junk]), "entry 0 does not parse as X.509"),
        (bundle("b", None, "", &[&key]), "entry 0 has bad block type: PRIVATE KEY"),
        (
            bundle("a:b", None, "", &[&good]),
            "ClusterTrustBundle without signer name must not have \":\" in its name",
        ),
        (
            bundle("b", Some("example.com/s"), "", &[&good]),
            "ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:",
        ),
        (bundle("com:s:b", Some("com/s"), "", &[&good]), "should be a domain with at least two segments"),
        (bundle("s:b", Some("s"), "", &[&good]), "must be a fully qualified domain and path"),
    ] {
        let said = refused(bundle);
        assert!(said.contains(text), "{said}");
    }
    let mine = bundle("example.com:s:b", Some("example.com/s"), "", &[&good]);
    node.apply(&mine.to_string());
    let mut other = mine.clone();
    other["spec"]["signerName"] = json!("example.com/t");
    let said = node.with_manifest(&["apply"], &other.to_string()).fails();
    assert!(
        said.contains("must be named with prefix example.com:t:") && said.contains("field is immutable"),
        "{said}"
    );

    // Who may write bundles, but not attest for the signer, writes none of that signer's.
    for (name, resource, verbs, only) in [
        ("writer", "clustertrustbundles", json!(["create"]), json!([])),
        ("attester", "signers", json!(["attest"]), json!(["example.org/*"])),
    ] {
        let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": verbs, "resourceNames": only});
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": [rule]});
        node.apply(&role.to_string());
    }
    node.kubectl(&["create", "clusterrolebinding", "writer", "--clusterrole=writer", "--user=ann"]).ok();
    let as_ann = |bundle: &Value| node.with_manifest(&["create", "--as=ann"], &bundle.to_string());
    as_ann(&bundle("anns", None, "", &[&good])).ok();
    let hers = bundle("example.org:s:anns", Some("example.org/s"), "", &[&good]);
    let said = as_ann(&hers).fails();
    assert!(said.contains("user not permitted to attest for signerName \"example.org/s\""), "{said}");
    node.kubectl(&["create", "clusterrolebinding", "attester", "--clusterrole=attester", "--user=ann"]).ok();
    eventually("the permission", || (as_ann(&hers).code == 0).then_some(()));
}

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn config() -> PkiConfig {
    PkiConfig {
        node_name: "edge-1".into(),
        hostnames: vec!["edge.example".into()],
        ips: vec!["192.0.2.7".parse().unwrap()],
        service_ip: Some("10.43.0.1".parse().unwrap()),
        cluster_domain: "cluster.local".into(),
    }
}

#[test]
fn files_survive_a_restart_unchanged_and_have_tight_modes() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::ensure(dir.path(), &config()).unwrap();
    let second = Pki::ensure(dir.path(), &config()).unwrap();
    assert_eq!(first.ca, second.ca);
    assert_eq!(first.serving.certificate, second.serving.certificate);
    assert_eq!(first.service_account_key, second.service_account_key);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let key = entry.path().extension().is_some_and(|e| e == "key");
        assert_eq!(mode, if key { 0o600 } else { 0o644 }, "{:?}", entry.path());
    }
}

#[test]
fn a_new_name_renews_only_the_serving_certificates_under_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::ensure(dir.path(), &config()).unwrap();
    let mut changed = config();
    changed.hostnames.push("other.example".into());
    let second = Pki::ensure(dir.path(), &changed).unwrap();
    assert_ne!(first.serving.certificate, second.serving.certificate);
    assert_eq!(first.serving.key, second.serving.key);
    assert_eq!(first.admin.certificate, second.admin.certificate);
    assert_eq!(first.ca, second.ca);
}

#[test]
fn a_crash_between_key_and_certificate_is_continued_from() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::ensure(dir.path(), &config()).unwrap();
    fs::remove_file(dir.path().join("apiserver.crt")).unwrap();
    fs::write(dir.path().join("ca.crt.new"), "half").unwrap();
    fs::remove_file(dir.path().join("ca.crt")).unwrap();
    let second = Pki::ensure(dir.path(), &config()).unwrap();
    assert_eq!(first.serving.key, second.serving.key);
    // The same authority: what it signed before is still good.
    assert_eq!(first.admin.certificate, second.admin.certificate);
}

#[test]
fn damaged_files_are_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    Pki::ensure(dir.path(), &config()).unwrap();
    let ca = fs::read(dir.path().join("ca.crt")).unwrap();
    fs::write(dir.path().join("ca.crt"), &ca[..100]).unwrap();
    let error = Pki::ensure(dir.path(), &config()).unwrap_err().to_string();
    assert!(error.contains("ca.crt is damaged: not a certificate in PEM"), "{error}");
    assert!(error.contains("delete the whole directory"), "{error}");
    fs::write(dir.path().join("ca.crt"), &ca).unwrap();

    fs::remove_file(dir.path().join("admin.key")).unwrap();
    let error = Pki::ensure(dir.path(), &config()).unwrap_err().to_string();
    assert!(error.contains("admin.key is damaged: it is missing"), "{error}");
    fs::remove_file(dir.path().join("admin.crt")).unwrap();
    Pki::ensure(dir.path(), &config()).unwrap();

    fs::write(dir.path().join("sa.key"), "").unwrap();
    let error = Pki::ensure(dir.path(), &config()).unwrap_err().to_string();
    assert!(error.contains("sa.key is damaged"), "{error}");
}

#[test]
fn a_certificate_of_another_key_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    Pki::ensure(dir.path(), &config()).unwrap();
    fs::copy(dir.path().join("admin.crt"), dir.path().join("kubelet.crt")).unwrap();
    let error = Pki::ensure(dir.path(), &config()).unwrap_err().to_string();
    assert!(error.contains("does not belong to the private key beside it"), "{error}");
}

#[test]
fn the_kubeconfig_is_yaml_with_the_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::ensure(dir.path(), &config()).unwrap();
    let value: serde_json::Value =
        serde_saphyr::from_str(&pki.admin_kubeconfig("https://127.0.0.1:6443")).unwrap();
    assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    assert_eq!(value["current-context"], "kubernetes-admin@sampan");
    assert!(value["users"][0]["user"]["client-key-data"].is_string());
}

//! Tables of environments: precedence, expansion, missing sources.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn container(value: serde_json::Value) -> Container {
    serde_json::from_value(value).unwrap()
}

fn sources() -> Sources {
    let config_map: ConfigMap =
        serde_json::from_value(json!({"data": {"1bad.key": "x", "A": "from-config", "B": "b"}})).unwrap();
    let secret: Secret = serde_json::from_value(json!({"data": {"A": "ZnJvbS1zZWNyZXQ="}})).unwrap();
    Sources {
        config_maps: BTreeMap::from([("cm".to_owned(), config_map)]),
        secrets: BTreeMap::from([("sec".to_owned(), secret)]),
        files: BTreeMap::from([
            (("v".to_owned(), "good".to_owned()), Ok("A='from-file'".to_owned())),
            (("v".to_owned(), "bad".to_owned()), Ok("A=b".to_owned())),
        ]),
    }
}

fn build(value: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"k": "$(B)"}}}),
    )
    .unwrap();
    let services = BTreeMap::from([
        ("KUBERNETES_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
        ("A".to_owned(), "from-service".to_owned()),
    ]);
    let inputs = EnvInputs {
        pod: &pod,
        services: &services,
        sources: &sources(),
        addresses: &Addresses::default(),
        allocatable: &BTreeMap::new(),
    };
    environment(&container(value), &inputs)
}

#[test]
fn env_37_later_sources_win() {
    let get = |value| build(value).unwrap().get("A").cloned().unwrap();
    assert_eq!(get(json!({"name": "c"})), "from-service");
    let config = json!({"configMapRef": {"name": "cm"}});
    let secret = json!({"secretRef": {"name": "sec"}});
    assert_eq!(get(json!({"name": "c", "envFrom": [config]})), "from-config");
    assert_eq!(get(json!({"name": "c", "envFrom": [config, secret]})), "from-secret");
    assert_eq!(get(json!({"name": "c", "envFrom": [secret, config]})), "from-config");
    let own = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    assert_eq!(get(json!({"name": "c", "envFrom": [config], "env": own})), "2");
}

#[test]
fn env_38_expansion_sees_earlier_variables_only() {
    let environment =
        build(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}], "env": [
            {"name": "FIRST", "value": "$(SECOND) $(P_B) $(KUBERNETES_SERVICE_HOST)"},
            {"name": "SECOND", "value": "$(FIRST)!"},
            {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['k']"}}},
            {"name": "EMPTY"},
        ]}))
        .unwrap();
    assert_eq!(environment["FIRST"], "$(SECOND) b 10.0.0.1");
    assert_eq!(environment["SECOND"], "$(SECOND) b 10.0.0.1!");
    assert_eq!(environment["FIELD"], "$(B)");
    assert_eq!(environment["EMPTY"], "");
}

#[test]
fn env_41_every_key_is_used_as_it_is() {
    let environment =
        build(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "p-"}]})).unwrap();
    assert_eq!(environment["p-1bad.key"], "x");
}

#[test]
fn env_42_missing_sources() {
    let key = |kind: &str, name: &str, key: &str, optional: bool| json!({"name": "c", "env": [{"name": "X", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
    for (value, error) in [
        (json!({"name": "c", "envFrom": [{"configMapRef": {"name": "x"}}]}), "configmap \"x\" not found"),
        (json!({"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}), "secret \"x\" not found"),
        (key("configMapKeyRef", "x", "k", false), "configmap \"x\" not found"),
        (key("secretKeyRef", "x", "k", false), "secret \"x\" not found"),
        (key("configMapKeyRef", "cm", "k", false), "couldn't find key k in ConfigMap ns/cm"),
        (key("secretKeyRef", "sec", "k", false), "couldn't find key k in Secret ns/sec"),
    ] {
        assert_eq!(build(value).unwrap_err(), error);
    }
    for value in [key("configMapKeyRef", "x", "k", true), key("secretKeyRef", "sec", "k", true)] {
        assert!(!build(value).unwrap().contains_key("X"));
    }
}

#[test]
fn references_are_collected_from_env_and_env_from() {
    let references = references(&container(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]})));
    assert_eq!(references.config_maps, BTreeSet::from(["a".to_owned()]));
    assert_eq!(references.secrets, BTreeSet::from(["b".to_owned(), "d".to_owned()]));
}

#[test]
fn env_43_variables_of_a_file() {
    let get = |path: &str, key: &str, optional: bool| {
        let file = json!({"volumeName": "v", "path": path, "key": key, "optional": optional});
        let env = json!([{"name": "X", "valueFrom": {"fileKeyRef": file}}]);
        build(json!({"name": "c", "env": env})).map(|environment| environment.get("X").cloned())
    };
    assert_eq!(get("good", "A", false), Ok(Some("from-file".to_owned())));
    assert_eq!(get("good", "B", true), Ok(None));
    assert_eq!(get("missing", "A", true), Ok(None));
    assert_eq!(
        get("good", "B", false).unwrap_err(),
        "environment variable key \"B\" not found in file \"good\""
    );
    assert!(get("missing", "A", false).unwrap_err().contains("not found in file \"missing\""));
    assert!(get("bad", "A", true).unwrap_err().contains("line 1: value must be enclosed in single quotes"));
}

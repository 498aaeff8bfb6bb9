#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::scheme;

fn pods() -> &'static Resource {
    scheme::find("", "v1", "pods").unwrap()
}

fn type_error(object: Value) -> String {
    decode_value(pods(), object).unwrap_err().to_string()
}

#[test]
fn unknown_and_duplicate_fields_are_reported_and_dropped() {
    let text =
        br#"{"apiVersion":"v1","kind":"Pod","spec":{"foo":1,"containers":[{"name":"a","name":"b","x":2}]}}"#;
    let decoded = decode_json(pods(), text).unwrap();
    assert_eq!(decoded.strict.len(), 3);
    assert!(decoded.strict.contains(&"unknown field \"spec.foo\"".into()));
    assert!(decoded.strict.contains(&"unknown field \"spec.containers[0].x\"".into()));
    assert_eq!(decoded.strict[0], "duplicate field \"spec.containers[0].name\"");
    assert_eq!(decoded.object["spec"], json!({"containers": [{"name": "b"}]}));
    let status = Decoded { object: json!({}), strict: vec!["unknown field \"spec.foo\"".into()] };
    assert_eq!(
        status.strict_error(pods()).unwrap().message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.foo\""
    );
}

#[test]
fn only_so_many_are_reported() {
    let many = |field: &str| (0..1000).map(|i| format!("{field}:{i}")).collect::<Vec<_>>().join(",");
    let twice = format!(r#"{{"metadata":{{"unknown":{{{}}}}}}}"#, many(r#""a""#));
    assert_eq!(decode_json(pods(), twice.as_bytes()).unwrap().strict.len(), 101);
    let unknown: serde_json::Map<_, _> = (0..1000).map(|i| (format!("f{i}"), json!(0))).collect();
    assert_eq!(decode_value(pods(), Value::Object(unknown)).unwrap().strict.len(), 100);
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    assert_eq!(
        type_error(json!({"spec": {"containers": [{"ports": "x"}]}})),
        "json: cannot unmarshal string into Go struct field Container.spec.containers.ports of type []v1.ContainerPort"
    );
    assert_eq!(
        type_error(json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}})),
        "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32"
    );
    assert_eq!(
        type_error(json!({"metadata": {"labels": {"a": 1}}})),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
    );
    assert_eq!(type_error(json!([])), "json: cannot unmarshal array into Go value of type v1.Pod");
}

#[test]
fn scalars_are_normalised() {
    let pod = json!({"metadata": {"creationTimestamp": null}, "spec": {"containers": [
        {"resources": {"limits": {"cpu": 1.5, "memory": "1024Ki"}}}]}});
    let pod = decode_value(pods(), pod).unwrap().object;
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "1500m", "memory": "1Mi"}));
    assert_eq!(pod["metadata"], json!({}));
    let secrets = scheme::find("", "v1", "secrets").unwrap();
    let error = decode_value(secrets, json!({"data": {"a": "#"}})).unwrap_err().to_string();
    assert_eq!(error, "illegal base64 data at input byte 0");
}

#[test]
fn yaml_is_read_as_kubernetes_reads_it() {
    let text = b"apiVersion: v1\nkind: Pod\nspec:\n  hostNetwork: yes\n  volumes:\n  - name: a\n    secret:\n      defaultMode: 0644\n";
    let decoded = decode_yaml(pods(), text).unwrap();
    assert_eq!(decoded.object["spec"]["volumes"][0]["secret"]["defaultMode"], 420);
    assert_eq!(decoded.object["spec"]["hostNetwork"], true);
    let twice = decode_yaml(pods(), b"kind: Pod\nkind: Pod\n").unwrap();
    assert_eq!(twice.strict, ["duplicate field \"kind\""]);
}

#[test]
fn every_resource_has_a_type() {
    for resource in scheme::resources() {
        assert!(type_of(resource).is_some(), "{}", resource.group_kind());
    }
}

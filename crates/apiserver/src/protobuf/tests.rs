#![allow(clippy::unwrap_used)]
use super::*;

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len()), bytes.to_vec()].concat()
}

fn number(number: usize, value: usize) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
}

#[test]
fn a_pod_becomes_json() {
    let metadata = [
        field(1, b"p"),
        field(2, b""),
        field(11, &[field(1, b"app"), field(2, b"x")].concat()),
        field(8, b""),
    ]
    .concat();
    let key = [field(1, &field(1, b"map")), field(2, b"key")].concat();
    let env = [field(1, b"E"), field(3, &field(3, &key))].concat();
    let http = [field(1, b"/"), field(2, &[number(1, 0), number(2, 80)].concat())].concat();
    let probe = [field(1, &field(2, &http)), number(2, 0), number(4, 9)].concat();
    let container = [field(1, b"c"), field(7, &env), field(10, &probe), number(16, 0)].concat();
    let volume = [field(1, b"v"), field(2, &field(6, &field(1, b"s")))].concat();
    let spec = [field(1, &volume), field(2, &container), number(4, 0), number(11, 0), number(21, 0)].concat();
    let pod = decode(&envelope("v1", "Pod", &[field(1, &metadata), field(2, &spec), field(3, b"")].concat()))
        .unwrap();
    assert_eq!(
        pod,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"}}, "status": {}, "spec": {
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}], "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "key"}}}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 9}}]}})
    );
}

#[test]
fn bytes_and_times_have_their_json_form() {
    let data = [field(1, b"k"), field(2, b"\x00\xff")].concat();
    let metadata = field(8, &number(1, 60));
    let secret = decode(&envelope("v1", "Secret", &[field(1, &metadata), field(2, &data)].concat())).unwrap();
    assert_eq!(secret["data"]["k"], "AP8=");
    assert_eq!(secret["metadata"]["creationTimestamp"], "1970-01-01T00:01:00Z");
}

#[test]
fn malformed_bytes_are_errors() {
    for bytes in [&b""[..], b"k8s\0", b"k8s\0\x0a\xff", b"{}"] {
        assert!(decode(bytes).is_err());
    }
    assert!(decode(&envelope("v1", "Nonsense", b"")).unwrap_err().contains("no kind \"Nonsense\""));
    assert!(decode(&envelope("v1", "Pod", b"\x0a\x05ab")).is_err());
    // Any bytes at all lead to an answer.
    for seed in 0..2000u32 {
        let raw: Vec<u8> =
            (0..40).map(|at| (seed.wrapping_mul(2_654_435_761).rotate_left(at) & 0xff) as u8).collect();
        let _ = decode(&envelope("v1", "Pod", &raw));
    }
}

#![allow(clippy::unwrap_used)]

use super::*;
use crate::pki::{Pki, PkiConfig};

fn pki() -> (Pki, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = PkiConfig {
        node_name: "edge-1".into(),
        hostnames: vec![],
        ips: vec![],
        service_ip: None,
        cluster_domain: "cluster.local".into(),
    };
    (Pki::ensure(dir.path(), &config).unwrap(), dir)
}

#[test]
fn common_name_and_organization_are_user_and_group() {
    let (pki, _dir) = pki();
    let verifier = Verifier::new(pki.ca_pem()).unwrap();
    let (chain, _) = pki.kubelet_client().to_rustls().unwrap();
    let kubelet = verifier.verify(&chain).unwrap();
    assert_eq!(kubelet.user.username, "system:node:edge-1");
    assert_eq!(kubelet.user.groups, ["system:nodes", "system:authenticated"]);
    assert_eq!(kubelet.user.node_name(), Some("edge-1"));
    let (chain, _) = pki.admin().to_rustls().unwrap();
    assert!(verifier.verify(&chain).unwrap().user.is_in("system:masters"));
}

#[test]
fn a_stranger_and_a_serving_certificate_are_refused() {
    let (ours, _dir) = pki();
    let (theirs, _other) = pki();
    let verifier = Verifier::new(ours.ca_pem()).unwrap();
    let (chain, _) = theirs.admin().to_rustls().unwrap();
    assert!(verifier.verify(&chain).is_err());
    let (chain, _) = ours.serving().to_rustls().unwrap();
    assert!(verifier.verify(&chain).is_err());
    assert!(verifier.verify(&[]).is_err());
}

fn parts(headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn tokens_come_in_a_header_or_a_websocket_protocol() {
    assert_eq!(bearer_token(&parts(&[("authorization", "Bearer abc")])).as_deref(), Some("abc"));
    assert_eq!(bearer_token(&parts(&[("authorization", "bearer abc")])).as_deref(), Some("abc"));
    assert_eq!(bearer_token(&parts(&[("authorization", "Basic abc")])).as_deref(), Some(""));
    assert_eq!(bearer_token(&parts(&[])), None);
    let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
    assert_eq!(bearer_token(&parts(&[("sec-websocket-protocol", protocols)])).as_deref(), Some("abc"));
}

#[test]
fn tokens_do_not_go_on_to_others() {
    let mut headers = HeaderMap::new();
    let mut add = |name, value| headers.append(name, HeaderValue::from_static(value));
    add(AUTHORIZATION, "Bearer secret");
    add(SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0");
    add(SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io");
    forget_tokens(&mut headers);
    assert!(!headers.contains_key(AUTHORIZATION));
    let left: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().collect();
    assert_eq!(left, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
}

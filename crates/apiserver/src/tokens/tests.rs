#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use sampan_store::embedded::Embedded;
use sampan_store::{Op, Store, Txn};

use super::*;
use crate::pki::{Pki, PkiConfig};

const NOW: i64 = 1_800_000_000;

struct Fixture {
    tokens: Tokens,
    authorization: Authorization,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let config = PkiConfig {
        node_name: "n".into(),
        hostnames: vec![],
        ips: vec![],
        service_ip: None,
        cluster_domain: "cluster.local".into(),
    };
    let pki = Pki::ensure(&dir.path().join("pki"), &config).unwrap();
    let store: Arc<dyn Store> = Embedded::open(&dir.path().join("store")).unwrap();
    let authorization = Authorization::over(store.clone());
    authorization.start().await.unwrap();
    let tokens = Tokens::over(pki.service_account_key(), "cluster.local").unwrap();
    let f = Fixture { tokens, authorization, store, _dir: dir };
    f.put("/registry/serviceaccounts/a/bot", json!({"metadata": {"name": "bot", "uid": "sa-1"}})).await;
    f
}

impl Fixture {
    async fn put(&self, key: &str, object: Value) {
        let op = Op::Put { key: Bytes::from(key.to_owned()), value: object.to_string().into(), lease: 0 };
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    async fn verify(&self, token: &str, now: i64) -> Result<Verified, Invalid> {
        self.tokens.verify(token, &[], &self.authorization, now).await
    }
}

fn claims() -> Claims {
    Claims {
        audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
        issued_at: NOW,
        expires_at: NOW + 600,
        namespace: "a".into(),
        service_account: Named { name: "bot".into(), uid: "sa-1".into() },
        ..Claims::default()
    }
}

#[tokio::test]
async fn a_token_stands_for_its_service_account() {
    let f = fixture().await;
    let token = f.tokens.issue(&claims()).unwrap();
    let user = f.verify(&token, NOW).await.unwrap().user;
    assert_eq!(user.username, "system:serviceaccount:a:bot");
    assert_eq!(user.uid, "sa-1");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
}

#[tokio::test]
async fn what_was_changed_or_ran_out_or_is_meant_for_others_is_refused() {
    let f = fixture().await;
    let token = f.tokens.issue(&claims()).unwrap();
    assert_eq!(f.verify(&token, NOW + 600).await, Err(Invalid::Expired));
    assert_eq!(f.verify(&token, NOW - 3600).await, Err(Invalid::Expired));
    let mut pieces: Vec<String> = token.split('.').map(str::to_owned).collect();
    let forged =
        json!({"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:masters"}).to_string();
    use base64::Engine as _;
    pieces[1] = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(forged);
    assert_eq!(f.verify(&pieces.join("."), NOW).await, Err(Invalid::Token));
    for garbage in ["", ".", "..", "a.b.c", "not a token"] {
        assert_eq!(f.verify(garbage, NOW).await, Err(Invalid::Token), "{garbage}");
    }
    let vault = Claims { audiences: vec!["vault".into()], ..claims() };
    let token = f.tokens.issue(&vault).unwrap();
    assert!(matches!(f.verify(&token, NOW).await, Err(Invalid::Audience { .. })));
    let found = f.tokens.verify(&token, &["x".into(), "vault".into()], &f.authorization, NOW).await.unwrap();
    assert_eq!(found.audiences, ["vault"]);
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    let f = fixture().await;
    f.put(
        "/registry/pods/a/p",
        json!({"metadata": {"name": "p", "uid": "pod-1"}, "spec": {"nodeName": "n"}}),
    )
    .await;
    let bound = Claims {
        pod: Some(Named { name: "p".into(), uid: "pod-1".into() }),
        node: Some(Named { name: "n".into(), uid: String::new() }),
        ..claims()
    };
    let token = f.tokens.issue(&bound).unwrap();
    let user = f.verify(&token, NOW).await.unwrap().user;
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n"]);
    // Being deleted: a minute is left.
    let at = jiff::Timestamp::from_second(NOW).unwrap().to_string();
    f.put("/registry/pods/a/p", json!({"metadata": {"name": "p", "uid": "pod-1", "deletionTimestamp": at}, "spec": {"nodeName": "n"}})).await;
    f.authorization.catch_up().await;
    assert!(f.verify(&token, NOW + 59).await.is_ok());
    assert_eq!(f.verify(&token, NOW + 61).await, Err(Invalid::Invalidated));
    // Another pod of the same name.
    f.store.txn(Txn { then: vec![Op::Delete("/registry/pods/a/p".into())], ..Txn::default() }).await.unwrap();
    f.put("/registry/pods/a/p", json!({"metadata": {"name": "p", "uid": "pod-2"}, "spec": {}})).await;
    f.authorization.catch_up().await;
    assert_eq!(f.verify(&token, NOW).await, Err(Invalid::Invalidated));
    // The service account made anew.
    let plain = f.tokens.issue(&claims()).unwrap();
    f.put("/registry/serviceaccounts/a/bot", json!({"metadata": {"name": "bot", "uid": "sa-2"}})).await;
    f.authorization.catch_up().await;
    assert_eq!(f.verify(&plain, NOW).await, Err(Invalid::Invalidated));
}

#[test]
fn durations_are_bounded_in_upstreams_words() {
    assert!(request::check_seconds(600).is_ok());
    let status = request::check_seconds(10).unwrap_err();
    assert_eq!(
        status.message,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 10: \
         may not specify a duration less than 10 minutes"
    );
    assert_eq!(status.code, 422);
    assert!(request::check_seconds((1 << 32) + 1).unwrap_err().message.contains("larger than 2^32 seconds"));
}

//! Transfers that are slow, cut, redirected, throttled or sent through a proxy.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sampan_oci::manifest::media_type;
use sampan_oci::registry::{Client, ClientConfig, Credentials, Proxies, RegistryError, Session};
use sampan_oci::{Descriptor, Reference};

use crate::fake::{Auth, Fake, Fault};

fn config() -> ClientConfig {
    ClientConfig {
        retry_pause: Duration::from_millis(5),
        stall_timeout: Duration::from_millis(800),
        document_timeout: Duration::from_millis(2000),
        ..ClientConfig::default()
    }
}

fn session(config: ClientConfig, image: &str, credentials: Credentials) -> Session {
    Client::new(config).unwrap().session(&Reference::parse(image).unwrap(), credentials)
}

fn plain(fake: &Fake) -> Session {
    session(config(), &fake.image("team/app:1"), Credentials::Anonymous)
}

fn blob(fake: &Fake, length: u32) -> (Descriptor, Vec<u8>) {
    let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    fake.blob(&descriptor.digest.to_string(), bytes.clone());
    (descriptor, bytes)
}

async fn all(session: &Session, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let mut stream = session.blob(descriptor, 0).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_drip_counts_as_a_stall_and_is_resumed() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake, 300_000);
    fake.fault("/blobs/", 1, Fault::Drip(100, Duration::from_millis(50)));
    assert!(all(&plain(&fake), &descriptor).await.unwrap() == bytes);
    assert!(fake.seen()[1].range.is_some(), "{:?}", fake.seen());
    // For ever is an error.
    fake.fault("/blobs/", 99, Fault::Drip(100, Duration::from_millis(50)));
    let error = all(&plain(&fake), &descriptor).await.unwrap_err();
    assert!(error.reason().contains("too slow"), "{error:?}");
}

#[tokio::test]
async fn a_manifest_that_drips_is_given_up() {
    let fake = Fake::start(Auth::None).await;
    fake.manifest("1", media_type::OCI_MANIFEST, vec![b' '; 100_000]);
    fake.fault("manifests", 9, Fault::Drip(10, Duration::from_millis(50)));
    let start = Instant::now();
    let error = plain(&fake).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn resets_and_refused_ranges_are_survived() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake, 300_000);
    fake.fault("/blobs/", 1, Fault::Reset(100_000));
    fake.fault("/blobs/", 1, Fault::NoRange);
    assert!(all(&plain(&fake), &descriptor).await.unwrap() == bytes);
    let seen = fake.seen();
    assert!(seen[1].range.is_some() && seen[2].range.is_none(), "{seen:?}");
}

#[tokio::test]
async fn a_blob_that_changes_while_it_is_fetched_is_noticed() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake, 300_000);
    fake.fault("/blobs/", 1, Fault::Cut(100_000));
    fake.fault("/blobs/", 9, Fault::Body(bytes[..200_000].to_vec()));
    let error = all(&plain(&fake), &descriptor).await.unwrap_err();
    assert!(error.to_string().contains("has 200000 bytes, the manifest promises 300000"), "{error}");
}

#[tokio::test]
async fn a_token_that_expires_in_mid_transfer_is_renewed() {
    let fake = Fake::start(Auth::Bearer { user: Some(("joe".into(), "secret".into())), realm: None }).await;
    let (descriptor, bytes) = blob(&fake, 300_000);
    let session = session(config(), &fake.image("team/app:1"), Credentials::basic("joe", "secret"));
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    session.manifest("1").await.unwrap();
    fake.fault("/blobs/", 1, Fault::Cut(100_000));
    fake.fault("/blobs/", 1, Fault::Expire);
    assert!(all(&session, &descriptor).await.unwrap() == bytes);
    assert_eq!(fake.count("/token"), 2);
    let range = fake.seen().last().unwrap().range.clone();
    assert_eq!(range.as_deref(), Some("bytes=100000-"), "with the new token from where it was");
}

#[tokio::test]
async fn refresh_tokens_and_registry_tokens() {
    let fake = Fake::start(Auth::Refresh("long-lived".into())).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let image = fake.image("team/app:1");
    let identity = Credentials::IdentityToken("long-lived".into());
    session(config(), &image, identity).manifest("1").await.unwrap();
    let post = fake.seen().into_iter().find(|s| s.line.starts_with("POST /token")).unwrap();
    assert!(post.body.contains("service=fake") && post.authorization.is_none(), "{post:?}");
    let token = fake.state.lock().unwrap().tokens[0].clone();
    session(config(), &image, Credentials::RegistryToken(token)).manifest("1").await.unwrap();
    assert_eq!(fake.count("/token"), 1, "a registry token needs no token server");
    let wrong = Credentials::RegistryToken("other".into());
    let error = session(config(), &image, wrong).manifest("1").await.unwrap_err();
    assert!(error.is_unauthorized() && !error.to_string().contains("other"), "{error}");
    let wrong = Credentials::IdentityToken("other".into());
    let error = session(config(), &image, wrong).manifest("1").await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
}

#[tokio::test]
async fn endless_401s_403_and_their_words() {
    let fake = Fake::start(Auth::Bearer { user: None, realm: None }).await;
    fake.fault(
        "manifests",
        99,
        Fault::Status(
            401,
            format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", fake.host()),
            String::new(),
        ),
    );
    let error = plain(&fake).manifest("1").await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert!(fake.count("manifests") <= 3, "no loop");
    fake.state.lock().unwrap().faults.clear();
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    fake.fault("manifests", 1, Fault::Status(403, String::new(), body.into()));
    let error = plain(&fake).manifest("1").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("403 Forbidden") && text.contains("DENIED: requested access"), "{text}");
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let fake = Fake::start(Auth::None).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let date = |seconds| httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(seconds));
    fake.fault("manifests", 1, Fault::Status(429, format!("Retry-After: {}\r\n", date(2)), String::new()));
    let start = Instant::now();
    plain(&fake).manifest("1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(900));
    fake.fault("manifests", 1, Fault::Status(429, format!("Retry-After: {}\r\n", date(9999)), String::new()));
    assert!(plain(&fake).manifest("1").await.unwrap_err().to_string().contains("429"));
}

#[tokio::test]
async fn a_redirect_target_that_refuses_is_named() {
    let fake = Fake::start(Auth::None).await;
    let storage = Fake::start(Auth::None).await;
    let (descriptor, _) = blob(&fake, 1000);
    let place = format!("http://{}/elsewhere/blobs/x", storage.host());
    fake.fault("/blobs/", 9, Fault::Redirect(place));
    storage.fault("elsewhere", 9, Fault::Status(403, String::new(), "<Error>expired</Error>".into()));
    let error = all(&plain(&fake), &descriptor).await.unwrap_err().to_string();
    assert!(error.contains(&format!(" at http://{}: 403 Forbidden", storage.host())), "{error}");
}

#[tokio::test]
async fn foreign_layers_come_from_where_the_manifest_says() {
    let fake = Fake::start(Auth::Bearer { user: None, realm: None }).await;
    let elsewhere = Fake::start(Auth::None).await;
    let (mut descriptor, bytes) = blob(&elsewhere, 100_000);
    descriptor.urls = vec![
        "ftp://nowhere/x".to_owned(),
        format!("http://{}/elsewhere/blobs/{}", elsewhere.host(), descriptor.digest),
    ];
    elsewhere.fault("/blobs/", 1, Fault::Cut(50_000));
    assert!(all(&plain(&fake), &descriptor).await.unwrap() == bytes);
    assert!(elsewhere.seen().iter().all(|s| s.authorization.is_none()));
    // A public registry cannot point into this machine.
    let mut config = config();
    config.insecure = BTreeSet::from(["registry.example".to_owned()]);
    config.proxies =
        Proxies::Fixed { http: Some(format!("http://{}", fake.host())), https: None, direct: String::new() };
    let outside = session(config, "registry.example/a/b:1", Credentials::Anonymous);
    let error = all(&outside, &descriptor).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn proxies_are_used_for_all_but_loopback() {
    let proxy = Fake::start(Auth::None).await;
    proxy.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let mut config = config();
    config.insecure = BTreeSet::from(["registry.example".to_owned(), "direct.example:1".to_owned()]);
    config.proxies = Proxies::Fixed {
        http: Some(format!("http://joe:secret@{}", proxy.host())),
        https: Some("http://127.0.0.1:1".to_owned()),
        direct: "direct.example".to_owned(),
    };
    let image = "registry.example/team/app:1";
    session(config.clone(), image, Credentials::Anonymous).manifest("1").await.unwrap();
    let seen = proxy.seen();
    assert!(seen[0].line.starts_with("GET http://registry.example/v2/team/app/manifests/1"), "{seen:?}");
    assert!(seen[0].head.to_ascii_lowercase().contains("proxy-authorization: basic"), "{seen:?}");
    let direct = session(config.clone(), "direct.example:1/x:1", Credentials::Anonymous);
    let error = direct.manifest("1").await.unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(proxy.seen().len(), 1, "NO_PROXY");
    let fake = Fake::start(Auth::None).await;
    session(config, &fake.image("a:1"), Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert_eq!((proxy.seen().len(), fake.seen().len()), (1, 1), "loopback goes direct");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_host_are_limited_and_short_answers_do_not_wait_for_long_ones() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake, 100_000);
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    fake.fault("/blobs/", 4, Fault::Drip(5_000, Duration::from_millis(60)));
    let session = session(
        ClientConfig { connections_per_host: 4, ..config() },
        &fake.image("team/app:1"),
        Credentials::Anonymous,
    );
    let pulls: Vec<_> = (0..12)
        .map(|_| {
            let (session, descriptor) = (session.clone(), descriptor.clone());
            tokio::spawn(async move { all(&session, &descriptor).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    session.manifest("1").await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    for pull in pulls {
        assert!(pull.await.unwrap() == bytes);
    }
    assert!(fake.state.lock().unwrap().busy.1 <= 4, "{:?}", fake.state.lock().unwrap().busy);
}

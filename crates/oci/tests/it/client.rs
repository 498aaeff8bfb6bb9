//! What the client does with what registries answer.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use sampan_oci::manifest::media_type;
use sampan_oci::registry::{Client, ClientConfig, Credentials, Proxies, RegistryError, Session};
use sampan_oci::{Descriptor, Digest, Reference};

use crate::fake::{Auth, Authority, Fake, Fault};

fn config() -> ClientConfig {
    ClientConfig {
        retry_pause: Duration::from_millis(5),
        stall_timeout: Duration::from_millis(1500),
        ..ClientConfig::default()
    }
}

fn client() -> Client {
    Client::new(config()).unwrap()
}

fn session(fake: &Fake, credentials: Credentials) -> Session {
    client().session(&Reference::parse(&fake.image("team/app:1")).unwrap(), credentials)
}

/// A registry that is spoken to over TLS only, as `reg.lan`.
struct Encrypted {
    fake: Fake,
    client: Client,
    _certs_d: tempfile::TempDir,
}

impl Encrypted {
    async fn start(auth: Auth, config: ClientConfig) -> Self {
        let authority = Authority::new();
        let fake = Fake::start_tls(auth, &authority, "127.0.0.1", false).await;
        let certs_d = tempfile::tempdir().unwrap();
        let dir = certs_d.path().join("reg.lan");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("ca.pem"), &authority.pem).unwrap();
        let hosts = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", fake.host());
        std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
        let config = ClientConfig { certs_d: vec![certs_d.path().to_path_buf()], ..config };
        Self { fake, client: Client::new(config).unwrap(), _certs_d: certs_d }
    }

    fn session(&self, credentials: Credentials) -> Session {
        self.client.session(&Reference::parse("reg.lan/team/app:1").unwrap(), credentials)
    }
}

fn user() -> Credentials {
    Credentials::basic("joe", "secret")
}

fn blob(fake: &Fake) -> (Descriptor, Vec<u8>) {
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    fake.blob(&descriptor.digest.to_string(), bytes.clone());
    (descriptor, bytes)
}

#[tokio::test]
async fn manifests_by_tag_and_digest() {
    let fake = Fake::start(Auth::None).await;
    let body = br#"{"schemaVersion":2}"#.to_vec();
    let digest = Digest::sha256(&body);
    fake.manifest("1", media_type::OCI_MANIFEST, body.clone());
    fake.manifest(&digest.to_string(), media_type::OCI_MANIFEST, body.clone());
    let session = session(&fake, Credentials::Anonymous);
    assert_eq!(session.resolve("1").await.unwrap(), Some(digest.clone()));
    let fetched = session.manifest("1").await.unwrap();
    assert_eq!(
        (fetched.digest, fetched.media_type.as_deref()),
        (digest.clone(), Some(media_type::OCI_MANIFEST))
    );
    // A registry that answers something else for a digest is found out.
    fake.manifest(&digest.to_string(), media_type::OCI_MANIFEST, b"{}".to_vec());
    let error = session.manifest(&digest.to_string()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Verify { .. }), "{error}");
}

#[tokio::test]
async fn errors_name_host_repository_status_and_the_registrys_own_words() {
    let fake = Fake::start(Auth::None).await;
    let error = session(&fake, Credentials::Anonymous).manifest("gone").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        format!(
            "manifest gone of {}/team/app: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown",
            fake.host()
        )
    );
    let closed = Reference::parse("127.0.0.1:1/x").unwrap();
    let start = Instant::now();
    let error = client().session(&closed, Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let nowhere = Reference::parse("no-such-host.invalid/x").unwrap();
    let error = client().session(&nowhere, Credentials::Anonymous).manifest("1").await.unwrap_err();
    // IMG-31 is about registries that are down; without a name server nobody can tell the two apart.
    assert!(matches!(error, RegistryError::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn bearer_tokens_are_fetched_once_and_kept() {
    let fake = Fake::start(Auth::Bearer { user: Some(("joe".into(), "secret".into())), realm: None }).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let session = session(&fake, user());
    session.manifest("1").await.unwrap();
    session.manifest("1").await.unwrap();
    assert_eq!(fake.count("/token"), 1);
    let token = fake.seen().into_iter().find(|s| s.line.contains("/token")).unwrap();
    assert!(
        token.line.contains("service=fake") && token.line.contains("scope=repository%3Ax%3Apull"),
        "{token:?}"
    );
    // Expired on the server's side: asked for again.
    fake.state.lock().unwrap().tokens.clear();
    fake.state.lock().unwrap().tokens.push("unrelated".into());
    session.manifest("1").await.unwrap();
    assert_eq!(fake.count("/token"), 2);
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_told_apart() {
    let fake = Fake::start(Auth::Bearer { user: Some(("joe".into(), "secret".into())), realm: None }).await;
    let error = session(&fake, Credentials::basic("joe", "wrong")).manifest("1").await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_unauthorized() && text.contains("not accepted") && text.contains("incorrect username"),
        "{text}"
    );
    assert!(!format!("{error:?}").contains("wrong"));
    let fake = Fake::start(Auth::Basic("joe".into(), "secret".into())).await;
    let error = session(&fake, Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("no credentials were given"), "{error}");
    assert!(error.to_string().contains("authentication required"), "{error}");
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    session(&fake, user()).manifest("1").await.unwrap();
    let error = session(&fake, Credentials::basic("joe", "no")).manifest("1").await.unwrap_err();
    assert!(error.is_unauthorized());
    assert!(fake.count("manifests") < 10, "no endless loop of challenges");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let fake = Fake::start(Auth::Basic("joe".into(), "secret".into())).await;
    let other = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake);
    other.blob(&descriptor.digest.to_string(), bytes.clone());
    let place = format!("http://{}/elsewhere/blobs/{}", other.host(), descriptor.digest);
    let session = session(&fake, user());
    // Once to learn the challenge, so that the redirect meets a request with credentials.
    let _ = session.manifest("1").await;
    fake.fault("/blobs/", 1, Fault::Redirect(place));
    let got = session.blob_bytes(&descriptor, 1 << 20).await.unwrap();
    assert_eq!(got, bytes);
    assert!(fake.seen().last().unwrap().authorization.is_some());
    assert_eq!(other.seen().len(), 1);
    assert!(other.seen()[0].authorization.is_none());
}

#[tokio::test]
async fn redirect_loops_end() {
    let fake = Fake::start(Auth::None).await;
    fake.fault("manifests", 100, Fault::Redirect("/v2/team/app/manifests/1".to_owned()));
    let error = session(&fake, Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert!(fake.count("manifests") <= 12);
}

#[tokio::test]
async fn a_redirect_does_not_lead_from_tls_to_plain_http() {
    let registry = Encrypted::start(Auth::None, config()).await;
    let plain = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&registry.fake);
    plain.blob(&descriptor.digest.to_string(), bytes.clone());
    plain.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let session = registry.session(Credentials::Anonymous);
    let place = format!("http://{}/v2/team/app", plain.host());
    registry.fake.fault("/manifests/", 1, Fault::Redirect(format!("{place}/manifests/1")));
    registry.fake.fault("/blobs/", 1, Fault::Redirect(format!("{place}/blobs/{}", descriptor.digest)));
    for error in [
        session.manifest("1").await.unwrap_err(),
        session.blob_bytes(&descriptor, 1 << 20).await.unwrap_err(),
    ] {
        let expected = format!("a redirect to http://{}, which is not encrypted", plain.host());
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    assert!(plain.seen().is_empty(), "{:?}", plain.seen());
    assert!(session.blob_bytes(&descriptor, 1 << 20).await.unwrap() == bytes);
}

#[tokio::test]
async fn cut_and_stalled_blobs_are_resumed_where_they_were() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake);
    fake.fault("/blobs/", 1, Fault::Cut(100_000));
    fake.fault("/blobs/", 1, Fault::Stall(50_000));
    fake.fault("/blobs/", 1, Fault::Status(503, String::new(), String::new()));
    let got = session(&fake, Credentials::Anonymous).blob_bytes(&descriptor, 1 << 20).await.unwrap();
    assert!(got == bytes);
    let ranges: Vec<_> = fake.seen().into_iter().filter_map(|s| s.range).collect();
    assert_eq!(ranges.first().map(String::as_str), Some("bytes=100000-"));
    assert_eq!(ranges.last().map(String::as_str), Some("bytes=150000-"));
}

#[tokio::test]
async fn a_registry_without_ranges_starts_again() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake);
    fake.fault("/blobs/", 1, Fault::Cut(100_000));
    fake.fault("/blobs/", 1, Fault::IgnoreRange);
    assert!(session(&fake, Credentials::Anonymous).blob_bytes(&descriptor, 1 << 20).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_blob_that_always_ends_at_the_same_place_is_given_up() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, _) = blob(&fake);
    fake.fault("/blobs/", 100, Fault::Truncate(100_000));
    let error = session(&fake, Credentials::Anonymous).blob_bytes(&descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { received: 100_000, .. }), "{error}");
    assert!(fake.count("/blobs/") <= 10, "{}", fake.count("/blobs/"));
}

#[tokio::test]
async fn broken_blobs_are_errors() {
    let fake = Fake::start(Auth::None).await;
    let (descriptor, bytes) = blob(&fake);
    let session = session(&fake, Credentials::Anonymous);
    fake.fault("/blobs/", 1, Fault::Corrupt);
    let error = session.blob_bytes(&descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::Verify { .. }), "{error}");
    fake.fault("/blobs/", 20, Fault::Cut(0));
    let error = session.blob_bytes(&descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    fake.state.lock().unwrap().faults.clear();
    fake.blob(&descriptor.digest.to_string(), bytes[..1000].to_vec());
    let error = session.blob_bytes(&descriptor, 1 << 20).await.unwrap_err();
    assert!(error.to_string().contains("the manifest promises 300000"), "{error}");
    let error = session.blob_bytes(&descriptor, 1000).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn too_many_requests_are_obeyed() {
    let fake = Fake::start(Auth::None).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    fake.fault("manifests", 1, Fault::Status(429, "Retry-After: 1\r\n".into(), String::new()));
    let start = Instant::now();
    let session = session(&fake, Credentials::Anonymous);
    session.manifest("1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    fake.fault("manifests", 1, Fault::Status(429, "Retry-After: 3600\r\n".into(), "slow down".into()));
    let error = session.manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("429 Too Many Requests: slow down"), "{error}");
    fake.fault("manifests", 9, Fault::Status(500, String::new(), "<html>".into()));
    assert!(session.manifest("1").await.is_err());
}

#[tokio::test]
async fn a_token_server_that_is_busy_is_asked_again() {
    let fake = Fake::start(Auth::Bearer { user: None, realm: None }).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    fake.fault("/token", 1, Fault::Status(429, "Retry-After: 1\r\n".into(), String::new()));
    fake.fault("/token", 1, Fault::Status(503, String::new(), String::new()));
    let start = Instant::now();
    session(&fake, Credentials::Anonymous).manifest("1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(fake.count("/token"), 3);
    fake.fault("/token", 1, Fault::Status(429, "Retry-After: 3600\r\n".into(), "slow down".into()));
    let error = session(&fake, user()).manifest("1").await.unwrap_err();
    let expected = format!("token from http://{} of {}/", fake.host(), fake.host());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.to_string().ends_with("429 Too Many Requests: slow down"), "{error}");
}

#[tokio::test]
async fn huge_manifests_and_tokens_are_not_read() {
    let fake = Fake::start(Auth::None).await;
    fake.manifest("1", media_type::OCI_MANIFEST, vec![b' '; 50 << 20]);
    let error = session(&fake, Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    let fake = Fake::start(Auth::Bearer { user: None, realm: None }).await;
    fake.manifest("1", media_type::OCI_MANIFEST, b"{}".to_vec());
    let huge = format!(r#"{{"token":"{}"}}"#, "t".repeat(2 << 20));
    fake.fault("/token", 1, Fault::Status(200, String::new(), huge));
    let session = session(&fake, Credentials::Anonymous);
    let error = session.manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 1_048_576, .. }), "{error}");
    session.manifest("1").await.unwrap();
}

#[tokio::test]
async fn a_tls_registry_is_not_made_to_leak_secrets_by_a_plain_realm() {
    // Whatever goes to another host in plain HTTP is seen here.
    let outside = Fake::start(Auth::Bearer { user: None, realm: None }).await;
    let proxies = Proxies::Fixed {
        http: Some(format!("http://{}", outside.host())),
        https: None,
        direct: String::new(),
    };
    let realm = Some("http://tokens.example.com/token".to_owned());
    let registry =
        Encrypted::start(Auth::Bearer { user: None, realm }, ClientConfig { proxies, ..config() }).await;
    for credentials in [user(), Credentials::IdentityToken("secret".to_owned())] {
        let error = registry.session(credentials).manifest("1").await.unwrap_err().to_string();
        assert!(error.starts_with("token from http://tokens.example.com "), "{error}");
        assert!(error.ends_with("asks for credentials to be sent unencrypted; refused"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert!(outside.seen().is_empty(), "{:?}", outside.seen());
    assert!(registry.fake.seen().iter().all(|seen| seen.authorization.is_none()));
    // Who has no secret may ask.
    registry.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert_eq!(outside.count("/token"), 1);
}

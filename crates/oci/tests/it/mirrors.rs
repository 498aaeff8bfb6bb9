//! Mirrors, certificates and headers of `certs.d`, against real sockets.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use sampan_oci::manifest::media_type;
use sampan_oci::registry::{Client, ClientConfig, Credentials, RegistryError, Session};
use sampan_oci::{Descriptor, Digest, Reference};

use crate::fake::{Auth, Authority, Fake, Fault};

struct Node {
    dir: tempfile::TempDir,
    client: Client,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(ClientConfig {
            retry_pause: Duration::from_millis(5),
            stall_timeout: Duration::from_millis(2000),
            connect_timeout: Duration::from_millis(1500),
            certs_d: vec![dir.path().to_path_buf()],
            ..ClientConfig::default()
        })
        .unwrap();
        Self { dir, client }
    }

    fn hosts(&self, host: &str, text: &str) {
        write(&self.dir.path().join(host).join("hosts.toml"), text);
    }

    fn session(&self, image: &str, credentials: Credentials) -> Session {
        self.client.session(&Reference::parse(image).unwrap(), credentials)
    }

    fn anonymous(&self, image: &str) -> Session {
        self.session(image, Credentials::Anonymous)
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn manifest(fake: &Fake) -> Digest {
    let body = br#"{"schemaVersion":2}"#.to_vec();
    let digest = Digest::sha256(&body);
    fake.manifest("1", media_type::OCI_MANIFEST, body);
    digest
}

/// A port on which nobody listens.
const CLOSED: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn mirrors_are_asked_in_order_and_told_which_registry_is_meant() {
    let (mirror, other) = (Fake::start(Auth::None).await, Fake::start(Auth::None).await);
    let digest = manifest(&mirror);
    let node = Node::new();
    node.hosts(
        "docker.io",
        &format!(
            "server = \"{CLOSED}\"\n[host.\"{CLOSED}\"]\n[host.\"http://{}\"]\n[host.\"http://{}/hub\"]\n\
             [host.\"http://{}/hub\".header]\nx-who = \"me\"\n",
            other.host(),
            mirror.host(),
            mirror.host()
        ),
    );
    let session = node.session("busybox:1", Credentials::basic("joe", "secret"));
    assert_eq!(session.resolve("1").await.unwrap(), Some(digest));
    assert_eq!(other.seen().len(), 1, "404, so the next one");
    let seen = mirror.seen().remove(0);
    assert!(seen.line.starts_with("HEAD /hub/v2/library/busybox/manifests/1?ns=docker.io "), "{seen:?}");
    assert!(seen.head.contains("x-who: me") && seen.authorization.is_none(), "{seen:?}");
    // Changed while we run.
    node.hosts("docker.io", &format!("server = \"http://{}\"", mirror.host()));
    session.manifest("1").await.unwrap();
    assert!(mirror.seen()[1].line.starts_with("GET /v2/library/busybox/manifests/1 "), "{:?}", mirror.seen());
}

#[tokio::test]
async fn a_mirror_is_shown_its_own_credentials_and_never_the_registrys() {
    let basic = || Auth::Basic("joe".into(), "right".into());
    let (mirror, server) = (Fake::start(basic()).await, Fake::start(basic()).await);
    let digest = manifest(&mirror);
    let node = Node::new();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.host(), mirror.host());
    node.hosts("reg.lan", &text);
    assert_eq!(node.client.mirrors("reg.lan").unwrap(), [mirror.host()]);
    let session = || node.session("reg.lan/a/b:1", Credentials::basic("reg", "hidden"));
    session().resolve("1").await.unwrap_err();
    assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", mirror.seen());
    // The first is refused, the second is not.
    let logins = vec![Credentials::basic("joe", "wrong"), Credentials::basic("joe", "right")];
    let session = session().with_mirror_logins([(mirror.host(), logins)].into());
    assert_eq!(session.resolve("1").await.unwrap(), Some(digest));
    let asked = server.seen().len();
    session.manifest("1").await.unwrap();
    assert_eq!(server.seen().len(), asked, "the mirror had it");
    let mirrors_own = Credentials::basic("joe", "right");
    let wrong = node
        .session("reg.lan/a/b:1", mirrors_own)
        .with_mirror_logins([("elsewhere.lan".to_owned(), vec![Credentials::basic("joe", "right")])].into());
    let error = wrong.resolve("1").await.unwrap_err().to_string();
    assert!(!error.contains("right") && error.contains("tried 2 hosts"), "{error}");
}

#[tokio::test]
async fn a_mirror_that_cannot_be_reached_is_not_waited_for_again_and_again() {
    let server = Fake::start(Auth::None).await;
    manifest(&server);
    let dead = Fake::start(Auth::None).await;
    manifest(&dead);
    dead.fault("manifests", 99, Fault::Status(503, String::new(), String::new()));
    let node = Node::new();
    // 192.0.2.0/24 is nobody's: packets to it vanish, or are refused by the first router.
    let text = format!("server = \"http://{}\"\n[host.\"http://192.0.2.1:5000\"]\n", server.host());
    node.hosts("reg.lan", &text);
    let session = node.anonymous("reg.lan/a/b:1");
    session.manifest("1").await.unwrap();
    let start = std::time::Instant::now();
    for _ in 0..5 {
        session.manifest("1").await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.host(), dead.host());
    node.hosts("reg2.lan", &text);
    node.anonymous("reg2.lan/a/b:1").manifest("1").await.unwrap();
    assert!(dead.count("manifests") <= 2, "somebody else can be asked instead of waiting");
}

#[tokio::test]
async fn errors_name_every_place_that_was_tried_and_what_it_said() {
    let (mirror, server) =
        (Fake::start(Auth::None).await, Fake::start(Auth::Basic("u".into(), "p".into())).await);
    let node = Node::new();
    node.hosts(
        "reg.lan",
        &format!(
            "server = \"http://{}\"\n[host.\"{CLOSED}\"]\n[host.\"http://{}\"]\n",
            server.host(),
            mirror.host()
        ),
    );
    let error =
        node.session("reg.lan/a/b:1", Credentials::basic("joe", "hidden")).manifest("1").await.unwrap_err();
    assert!(error.is_unauthorized() && !error.is_unavailable(), "the registry's own word decides: {error}");
    let text = error.to_string();
    assert!(text.starts_with("manifest 1 of reg.lan/a/b: tried 3 hosts: [http://127.0.0.1:1: "), "{text}");
    assert!(text.contains("connect: connection refused"), "{text}");
    assert!(
        text.contains(&format!(
            "[http://{}: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown]",
            mirror.host()
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "[http://{}: 401 Unauthorized, the credentials were not accepted: UNAUTHORIZED: authentication required]",
            server.host()
        )),
        "{text}"
    );
    assert!(!text.contains("hidden") && !format!("{error:?}").contains("hidden"), "{error:?}");
    // All down: unavailable (IMG-31).
    node.hosts(
        "down.lan",
        &format!("server = \"{CLOSED}\"\n[host.\"{CLOSED}\"]\n[host.\"http://{}\"]", mirror.host()),
    );
    let error = node.anonymous("down.lan/a/b:1").manifest("1").await.unwrap_err();
    assert!(error.is_unavailable() && !error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_broken_hosts_file_is_an_error_that_names_it() {
    let node = Node::new();
    node.hosts("reg.lan", "server = 3");
    let error = node.anonymous("reg.lan/a/b:1").manifest("1").await.unwrap_err();
    let reason = error.reason();
    assert!(reason.contains("reg.lan/hosts.toml: server: must be a string"), "{reason}");
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_passed_over() {
    let (mirror, server) = (Fake::start(Auth::None).await, Fake::start(Auth::None).await);
    let digest = manifest(&server);
    mirror
        .state
        .lock()
        .unwrap()
        .manifests
        .insert(digest.to_string(), (media_type::OCI_MANIFEST.to_owned(), b"{\"other\":1}".to_vec()));
    let node = Node::new();
    node.hosts(
        "reg.lan",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]", server.host(), mirror.host()),
    );
    let session = node.anonymous("reg.lan/a/b:1");
    assert_eq!(session.manifest(&digest.to_string()).await.unwrap().digest, digest);
    assert_eq!((mirror.seen().len(), server.seen().len()), (1, 1));
    // A blob's content is judged by its reader, who then asks somebody else.
    let bytes = vec![7; 1000];
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    mirror.blob(&descriptor.digest.to_string(), vec![8; 1000]);
    server.blob(&descriptor.digest.to_string(), bytes);
    let mut stream = session.blob(&descriptor, 0).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap()[0], 8);
    assert!(session.distrust(stream.origin()), "the server is left");
    let mut stream = session.blob(&descriptor, 0).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap()[0], 7);
    assert!(!session.distrust(stream.origin()), "nobody is left");
}

#[tokio::test]
async fn certificates_of_a_host_are_its_own() {
    let authority = Authority::new();
    let fake = Fake::start_tls(Auth::None, &authority, "127.0.0.1", true).await;
    manifest(&fake);
    let node = Node::new();
    let name = fake.image("a/b:1");
    let dir = fake.host().replace(':', "_") + "_";
    let at = |file: &str| node.dir.path().join(&dir).join(file);
    write(&at("ca.pem"), &authority.pem);
    let (certificate, key) = authority.issue("client");
    write(&at("client.pem"), &certificate);
    write(&at("client.key"), &key);
    let server = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", fake.host());
    node.hosts(&dir, &server);
    let error = node.anonymous(&name).manifest("1").await.unwrap_err();
    assert!(!error.is_not_found(), "the registry wants a certificate: {error}");
    node.hosts(&dir, &format!("{server}client = [[\"client.pem\", \"client.key\"]]\n"));
    node.anonymous(&name).manifest("1").await.unwrap();
    assert!(fake.seen().last().unwrap().certified);
    // Neither the certificate nor the headers go where the registry redirects to.
    let storage = Fake::start_tls(Auth::None, &authority, "127.0.0.1", false).await;
    let bytes = vec![1; 5000];
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    storage.blob(&descriptor.digest.to_string(), bytes.clone());
    let place = format!("https://{}/elsewhere/blobs/{}", storage.host(), descriptor.digest);
    fake.fault("/blobs/", 1, Fault::Redirect(place));
    node.hosts(
        &dir,
        &format!("{server}client = [[\"client.pem\", \"client.key\"]]\n[header]\nx-secret = \"one\"\n"),
    );
    let got = node.anonymous(&name).blob_bytes(&descriptor, 1 << 20).await.unwrap();
    assert!(got == bytes);
    assert!(fake.seen().last().unwrap().head.contains("x-secret"));
    let seen = storage.seen().remove(0);
    assert!(!seen.head.contains("x-secret") && !seen.certified, "{seen:?}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_and_said() {
    let authority = Authority::new();
    let fake = Fake::start_tls(Auth::None, &authority, "other.example", false).await;
    manifest(&fake);
    let node = Node::new();
    write(&node.dir.path().join("reg.lan/ca.pem"), &authority.pem);
    let server = format!("server = \"https://{}\"\n", fake.host());
    node.hosts("reg.lan", &format!("{server}ca = \"ca.pem\"\n"));
    let error = node.anonymous("reg.lan/a/b:1").manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Certificate { .. }), "{error:?}");
    assert!(!error.is_unavailable(), "waiting does not mend it");
    assert!(error.reason().contains("certificate"), "{}", error.reason());
    // An unknown authority, too.
    node.hosts("reg.lan", &server);
    let error = node.anonymous("reg.lan/a/b:1").manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Certificate { .. }), "{error:?}");
    node.hosts("reg.lan", &format!("{server}skip_verify = true\n"));
    node.anonymous("reg.lan/a/b:1").manifest("1").await.unwrap();
}

#[tokio::test]
async fn a_mirror_that_only_pulls_answers_for_digests() {
    let mirror = Fake::start(Auth::None).await;
    let digest = manifest(&mirror).to_string();
    let node = Node::new();
    let host = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n", mirror.host());
    node.hosts("reg.lan", &format!("server = \"{CLOSED}\"\n{host}"));
    // The registry itself cannot be reached: what a tag means, nobody can say.
    let session = node.anonymous("reg.lan/a/b:1");
    assert!(session.resolve("1").await.unwrap_err().is_unavailable());
    assert_eq!(session.resolve(&digest).await.unwrap().map(|found| found.to_string()), Some(digest.clone()));
    assert_eq!(session.manifest(&digest).await.unwrap().digest.to_string(), digest);
}

#[tokio::test]
async fn schema_1_is_told_before_its_digest_is_found_wrong() {
    let fake = Fake::start(Auth::None).await;
    let body = br#"{"schemaVersion":1,"name":"a/b","fsLayers":[],"signatures":[]}"#.to_vec();
    let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    fake.manifest("1", kind, body.clone());
    let other = format!("sha256:{}", "1".repeat(64));
    fake.manifest(&other, kind, body);
    let node = Node::new();
    let session = node.anonymous(&fake.image("a/b:1"));
    for version in ["1", &other] {
        for error in
            [session.resolve(version).await.unwrap_err(), session.manifest(version).await.unwrap_err()]
        {
            assert!(error.to_string().contains("a Docker schema 1 manifest"), "{version}: {error}");
        }
    }
}

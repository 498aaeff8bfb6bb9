//! More registries that misbehave: whole pulls through mirrors, tokens, resets, and documents made to confuse.

use std::sync::Arc;
use std::time::Duration;

use sampan_oci::Digest;
use sampan_oci::manifest::media_type as mt;
use sampan_oci::registry::Credentials;
use sampan_runtime::images::{ImageStore, PullRequest};
use serde_json::json;

use super::builder::{Coding, Image, assert_tidy, config, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake, Fault};

fn two() -> Image {
    Image::new(&[
        (tar(&[("low", &noise(1, 500_000))]), Coding::Gzip),
        (tar(&[("top", &noise(2, 500_000))]), Coding::Zstd),
    ])
}

fn user() -> Option<(String, String)> {
    Some(("joe".to_owned(), "secret".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_tokens_resets_and_throttling_in_one_pull() {
    let (fake, dir) =
        (Fake::start(Auth::Bearer { user: user(), realm: None }).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    let last = format!("blobs/{}", image.layers[1].0.digest);
    fake.fault(&last, 1, Fault::Reset(100_000));
    fake.fault(&last, 1, Fault::Expire);
    fake.fault(&last, 1, Fault::Cut(200_000));
    fake.fault(&last, 1, Fault::Status(429, "Retry-After: 0\r\n".into(), String::new()));
    fake.fault(&last, 1, Fault::NoRange);
    let store = open(dir.path()).await;
    let credentials = Credentials::basic("joe", "secret");
    let request = PullRequest { image: fake.image("a:1"), credentials, ..PullRequest::default() };
    let record = store.pull(request).await.unwrap();
    assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 500_000));
    assert!(fake.count("/token") >= 2);
    assert_tidy(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_wrong_layers_is_passed_over() {
    let (mirror, server) = (Fake::start(Auth::None).await, Fake::start(Auth::None).await);
    let dir = tempfile::tempdir().unwrap();
    let image = two();
    image.publish(&mirror, "1");
    image.publish(&server, "1");
    mirror.fault("/blobs/", 99, Fault::Corrupt);
    let hosts = dir.path().join("certs.d/reg.lan");
    std::fs::create_dir_all(&hosts).unwrap();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.host(), mirror.host());
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    let mut config = config(&dir.path().join("data"));
    config.registry.certs_d = vec![dir.path().join("certs.d")];
    let store = ImageStore::open(config).await.unwrap();
    // The configuration comes over the mirror, too: it is small, and its registry is told apart at once.
    mirror.state.lock().unwrap().blobs.remove(&image.id().to_string());
    let record = pull(&store, "reg.lan/a/b:1").await.unwrap();
    assert_eq!(record.repo_tags, ["reg.lan/a/b:1"]);
    assert_eq!(file_of(&store, &record, "low").unwrap(), noise(1, 500_000));
    assert!(mirror.count("/blobs/") >= 1 && server.count("/blobs/") >= 2);
    assert_tidy(&dir.path().join("data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_half_of_a_blob_is_thrown_away_and_fetched_again() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    // As a loss of power leaves it: the length is there, the bytes are not.
    let digest = &image.layers[1].0.digest;
    let half = dir.path().join(format!("content/ingest/sha256-{}", digest.hex()));
    std::fs::write(&half, vec![0; 200_000]).unwrap();
    let record = pull(&store, &fake.image("a:1")).await.unwrap();
    assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 500_000));
    let ranges: Vec<bool> = fake
        .seen()
        .iter()
        .filter(|s| s.line.contains(&digest.to_string()))
        .map(|s| s.range.is_some())
        .collect();
    assert_eq!(ranges, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_pull_uses_its_own_credentials_when_the_first_one_is_refused() {
    let (fake, dir) =
        (Fake::start(Auth::Bearer { user: user(), realm: None }).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    // The first pull's blob hangs, then its right to it is withdrawn.
    let blob = format!("blobs/{}", image.layers[0].0.digest);
    fake.fault(&blob, 1, Fault::Drip(20_000, Duration::from_millis(30)));
    let refused = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
    let pull = |name: &str, store: &Arc<ImageStore>| {
        let (store, image) = (store.clone(), fake.image(name));
        let credentials = Credentials::basic("joe", "secret");
        tokio::spawn(
            async move { store.pull(PullRequest { image, credentials, ..PullRequest::default() }).await },
        )
    };
    fake.fault(&format!("a/x/{blob}"), 99, Fault::Status(403, String::new(), refused.to_owned()));
    fake.state.lock().unwrap().faults.swap(0, 1);
    let first = pull("a/x:1", &store);
    let second = pull("a/y:1", &store);
    let record = second.await.unwrap().unwrap();
    assert_eq!(file_of(&store, &record, "low").unwrap(), noise(1, 500_000));
    // The first has failed, or found the layer that the second brought: its manifest was its own.
    if let Err(error) = first.await.unwrap() {
        assert!(error.chain().contains("403 Forbidden"), "{}", error.chain());
    }
    // Without a right to the manifest there is nothing, however complete the layers are.
    let nobody = PullRequest { image: fake.image("a/z:1"), ..PullRequest::default() };
    assert!(store.pull(nobody).await.unwrap_err().chain().contains("401 Unauthorized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_made_to_confuse() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let store = open(dir.path()).await;
    let image = two();
    image.publish(&fake, "");
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let huge = text.replace(&format!("\"size\":{}", image.layers[0].1.len()), "\"size\":9007199254740993");
    assert_ne!(huge, text);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (text.replacen('{', "{\"layers\":[],", 1).into_bytes(), "duplicate field"),
        (b"{\"schemaVersion\":2,\"config\":\xff}".to_vec(), "malformed"),
        (text.replace("\"layers\":[", "\"layers\":[null,").into_bytes(), "malformed"),
        (text.as_bytes()[..text.len() / 2].to_vec(), "malformed"),
        (huge.into_bytes(), "(the image needs 8589934593 MiB more, "),
        ([b'['; 100_000].to_vec(), "malformed"),
    ];
    for (i, (bytes, expected)) in cases.into_iter().enumerate() {
        fake.manifest(&format!("t{i}"), mt::OCI_MANIFEST, bytes);
        let error = pull(&store, &fake.image(&format!("a:t{i}"))).await.unwrap_err().chain();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // What the manifest says about its configuration is checked, too.
    let mut other = two();
    other.config = b"{\"rootfs\":{\"diff_ids\":null},\"config\":null,\"history\":null}".to_vec();
    other.seal();
    other.publish(&fake, "nulls");
    let error = pull(&store, &fake.image("a:nulls")).await.unwrap_err().chain();
    assert!(error.contains("the manifest has 2 layers, the image configuration names 0"), "{error}");
    fake.fault("manifests/typed", 99, Fault::Type("text/html"));
    fake.manifest("typed", mt::OCI_MANIFEST, image.manifest.clone());
    // The document says what it is, so a proxy's wrong header does no harm.
    assert_eq!(pull(&store, &fake.image("a:typed")).await.unwrap().id, image.id());
    let error = {
        fake.manifest("html", "text/html", b"<html>log in first</html>".to_vec());
        pull(&store, &fake.image("a:html")).await.unwrap_err().chain()
    };
    assert!(error.contains("malformed") || error.contains("text/html"), "{error}");
}

/// What a digest means is shown by those who may see it: an image of another repository has its documents fetched once
/// more, its layers not.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_alone_opens_nobody_elses_image() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    pull(&store, &fake.image("theirs/app:1")).await.unwrap();
    let refused = || Fault::Status(404, String::new(), String::new());
    let (manifest, config) =
        (format!("ours/app/manifests/{}", image.digest()), format!("ours/app/blobs/{}", image.id()));
    for unknown in [format!("GET /v2/{manifest}"), format!("GET /v2/{config}")] {
        fake.fault(&unknown, 1, refused());
        pull(&store, &fake.image("ours/app:1")).await.unwrap_err();
        assert!(store.resolve(&fake.image("ours/app:1")).unwrap().is_none());
    }
    // An index of ours that lists it is not enough.
    let entries = json!({"schemaVersion": 2, "mediaType": mt::OCI_INDEX,
        "manifests": [image.entry(json!({"os": "linux", "architecture": "amd64"}))]});
    let index = serde_json::to_vec(&entries).unwrap();
    fake.manifest("listed", mt::OCI_INDEX, index);
    fake.fault(&format!("GET /v2/{manifest}"), 1, refused());
    pull(&store, &fake.image("ours/app:listed")).await.unwrap_err();
    assert!(store.resolve(&fake.image("ours/app:listed")).unwrap().is_none());
    let before = fake.count("/blobs/");
    pull(&store, &fake.image("ours/app:1")).await.unwrap();
    assert_eq!(fake.count("/blobs/") - before, 1, "the configuration");
    let before = fake.count("GET");
    pull(&store, &fake.image("ours/app:1")).await.unwrap();
    assert_eq!(fake.count("GET"), before, "shown before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_changes_between_head_and_get_is_not_believed() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let store = open(dir.path()).await;
    let (old, new) = (two(), Image::new(&[(tar(&[("x", b"new")]), Coding::Gzip)]));
    old.publish(&fake, "1");
    new.publish(&fake, "");
    fake.fault(&format!("GET /v2/a/manifests/{}", old.digest()), 9, Fault::Body(new.manifest.clone()));
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains("has digest") && error.contains(&old.digest().to_string()), "{error}");
    // A configuration that is another one.
    fake.state.lock().unwrap().faults.clear();
    fake.fault(&format!("blobs/{}", old.id()), 9, Fault::Corrupt);
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains(&Digest::sha256(&old.config).to_string()), "{error}");
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn compressions_that_nobody_reads_are_named() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let store = open(dir.path()).await;
    let mut image = two();
    let mut blob = b"\xfd7zXZ\0".to_vec();
    blob.extend(noise(9, 2000));
    image.layers[1] =
        (sampan_oci::Descriptor::of("application/vnd.oci.image.layer.v1.tar+xz", &blob), blob.clone());
    image.seal();
    image.publish(&fake, "1");
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains("compressed with xz, which is not supported (gzip and zstd are)"), "{error}");
    let error = store.load(std::io::Cursor::new(blob)).await.unwrap_err().chain();
    assert!(error.contains("image archive") && error.contains("compressed with xz"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_come_from_their_own_place() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let elsewhere = Fake::start(Auth::None).await;
    let mut image = two();
    let (descriptor, blob) = &mut image.layers[0];
    descriptor.media_type = mt::DOCKER_FOREIGN_LAYER.to_owned();
    descriptor.urls = vec![format!("http://{}/elsewhere/blobs/{}", elsewhere.host(), descriptor.digest)];
    elsewhere.blob(&descriptor.digest.to_string(), blob.clone());
    image.seal();
    image.publish(&fake, "1");
    fake.state.lock().unwrap().blobs.remove(&image.layers[0].0.digest.to_string());
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a:1")).await.unwrap();
    assert_eq!(file_of(&store, &record, "low").unwrap(), noise(1, 500_000));
    let config = json!(record.config);
    assert!(config.is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_own_words_are_told_also_where_a_head_has_none() {
    let (mirror, fake) = (Fake::start(Auth::None).await, Fake::start(Auth::None).await);
    let dir = tempfile::tempdir().unwrap();
    two().publish(&fake, "1");
    let hosts = dir.path().join("certs.d/reg.lan");
    std::fs::create_dir_all(&hosts).unwrap();
    let text = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", fake.host(), mirror.host());
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    let mut config = config(&dir.path().join("data"));
    config.registry.certs_d = vec![dir.path().join("certs.d")];
    let store = ImageStore::open(config).await.unwrap();
    let denied = r#"{"errors":[{"code":"DENIED","message":"ask the owner"}]}"#;
    fake.fault("GET /v2/a/b/manifests/1", 2, Fault::Status(403, String::new(), denied.to_owned()));
    fake.fault("HEAD /v2/a/b/manifests/1", 2, Fault::Status(403, String::new(), String::new()));
    for name in ["reg.lan/a/b:1", &fake.image("a/b:1")] {
        let error = pull(&store, name).await.unwrap_err().chain();
        assert!(
            error.contains("403 Forbidden") && error.contains("DENIED: ask the owner"),
            "{name}: {error}"
        );
    }
    // A registry that does not know the kind of request, behind a mirror that has nothing.
    fake.fault("HEAD /v2/a/b/manifests/1", 9, Fault::Status(405, String::new(), String::new()));
    pull(&store, "reg.lan/a/b:1").await.unwrap();
}

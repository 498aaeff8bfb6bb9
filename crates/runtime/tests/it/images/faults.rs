//! Registries that misbehave: nothing wrong is ever used, and what was wrong is said.

use std::time::Duration;

use sampan_oci::manifest::media_type as mt;
use serde_json::json;

use super::builder::{Coding, Image, assert_tidy, config, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake, Fault};
use sampan_runtime::images::{ImageError, ImageStore};

fn two() -> Image {
    Image::new(&[
        (tar(&[("low", &noise(1, 500_000))]), Coding::Gzip),
        (tar(&[("top", &noise(2, 500_000))]), Coding::Gzip),
    ])
}

async fn fails(image: &Image, fake: &Fake) -> ImageError {
    let dir = tempfile::tempdir().unwrap();
    image.publish(fake, "1");
    let store = open(dir.path()).await;
    let error = pull(&store, &fake.image("a/b:1")).await.unwrap_err();
    assert!(store.list().is_empty(), "an image that failed is not there");
    assert!(store.resolve(&fake.image("a/b:1")).unwrap().is_none());
    // The threads of a failed pull end on their own.
    for _ in 0..50 {
        if std::fs::read_dir(dir.path().join("snapshots/tmp")).unwrap().count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_tidy(dir.path());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_a_wrong_digest() {
    let fake = Fake::start(Auth::None).await;
    let image = two();
    fake.fault(&format!("blobs/{}", image.layers[1].0.digest), 9, Fault::Corrupt);
    let error = fails(&image, &fake).await.chain();
    // A bent gzip stream may be noticed before its digest.
    assert!(error.contains("has digest") || error.contains("decompress") || error.contains("tar"), "{error}");
    let plain = Image::new(&[(tar(&[("x", &noise(3, 100_000))]), Coding::Plain)]);
    fake.fault(&format!("blobs/{}", plain.layers[0].0.digest), 9, Fault::Corrupt);
    let error = fails(&plain, &fake).await.chain();
    assert!(error.contains("has digest") && error.contains("expected"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_what_the_configuration_says() {
    let fake = Fake::start(Auth::None).await;
    let mut image = two();
    let other = Image::new(&[(tar(&[("other", b"x")]), Coding::Gzip)]);
    image.layers[1] = other.layers[0].clone();
    image.seal();
    let error = fails(&image, &fake).await;
    assert!(matches!(error, ImageError::DiffId { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_missing_and_mislabelled_blobs() {
    let fake = Fake::start(Auth::None).await;
    let image = two();
    let digest = image.layers[1].0.digest.to_string();
    fake.fault(&format!("blobs/{digest}"), 99, Fault::Cut(0));
    let error = fails(&image, &fake).await.chain();
    assert!(error.contains("broken off") || error.contains("promised size"), "{error}");
    fake.state.lock().unwrap().faults.clear();
    let mut short = two();
    short.layers[0].0.size += 1;
    short.seal();
    let error = fails(&short, &fake).await.chain();
    assert!(error.contains("the manifest promises"), "{error}");
    let mut gone = two();
    gone.publish(&fake, "1");
    gone.layers.remove(1);
    fake.state.lock().unwrap().blobs.remove(&digest);
    let store_dir = tempfile::tempdir().unwrap();
    let store = open(store_dir.path()).await;
    let error = pull(&store, &fake.image("a/b:1")).await.unwrap_err().chain();
    assert!(error.contains("404 Not Found: BLOB_UNKNOWN"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_continued() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    for n in [10_000, 200_000, 1] {
        fake.fault("/blobs/", 1, Fault::Cut(n));
    }
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a/b:1")).await.unwrap();
    assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 500_000));
    assert!(fake.seen().iter().any(|s| s.range.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_is_continued_by_the_next_process() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = two();
    image.publish(&fake, "1");
    let digest = image.layers[1].0.digest.to_string();
    fake.fault(&format!("blobs/{digest}"), 1, Fault::Stall(300_000));
    let store = open(dir.path()).await;
    let name = fake.image("a/b:1");
    let stopped = tokio::time::timeout(Duration::from_millis(700), pull(&store, &name)).await;
    assert!(stopped.is_err(), "still waiting");
    // What a killed process leaves: the ingest file. The threads of this one need a moment to notice.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(store);
    let store = open(dir.path()).await;
    let record = pull(&store, &name).await.unwrap();
    assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 500_000));
    let ranges: Vec<_> =
        fake.seen().into_iter().filter(|s| s.line.contains(&digest)).filter_map(|s| s.range).collect();
    assert_eq!(ranges.len(), 1, "continued, not begun again");
    assert_eq!(
        fake.count(&format!("blobs/{}", image.layers[0].0.digest)),
        1,
        "what was complete is not fetched again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_images() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let store = open(dir.path()).await;
    let nested = json!({"schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": []}).to_string();
    let nested_digest = sampan_oci::Digest::sha256(nested.as_bytes());
    fake.manifest(&nested_digest.to_string(), mt::OCI_INDEX, nested.clone().into_bytes());
    let top = json!({"schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": [
        {"mediaType": mt::OCI_INDEX, "digest": nested_digest, "size": nested.len(),
         "platform": {"os": "linux", "architecture": "amd64"}}]});
    let helm = json!({"schemaVersion": 2, "layers": [],
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": nested_digest, "size": nested.len()}});
    fake.blob(&nested_digest.to_string(), nested.into_bytes());
    let many: Vec<_> = (0..10_000).map(|_| json!({"digest": nested_digest, "size": 1})).collect();
    let cases = [
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (top, "no match for platform"),
        (helm, "not a container image"),
        (
            json!({"schemaVersion": 2, "config": {"digest": nested_digest, "size": 1}, "layers": many}),
            "the image has 10000 layers, a node mounts at most 498",
        ),
        (
            json!({"schemaVersion": 2, "config": {"digest": "sha256:zz", "size": 1}, "layers": []}),
            "malformed",
        ),
        (json!("just text"), "malformed"),
        (json!({"schemaVersion": 2}), "is not an image manifest or index"),
    ];
    for (i, (document, expected)) in cases.into_iter().enumerate() {
        let bytes = document.to_string().into_bytes();
        fake.manifest(&sampan_oci::Digest::sha256(&bytes).to_string(), "application/json", bytes.clone());
        fake.manifest(&format!("t{i}"), "application/json", bytes);
        let error = pull(&store, &fake.image(&format!("a:t{i}"))).await.unwrap_err().chain();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    fake.manifest("huge", mt::OCI_MANIFEST, vec![b' '; 50 << 20]);
    let error = pull(&store, &fake.image("a:huge")).await.unwrap_err().chain();
    assert!(error.contains("larger than"), "{error}");
    let error = pull(&store, &fake.image("a:gone")).await.unwrap_err().chain();
    assert!(error.contains("404 Not Found"), "{error}");
    let error = pull(&store, "UPPER").await.unwrap_err();
    assert!(matches!(error, ImageError::Reference(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine() {
    let fake = Fake::start(Auth::None).await;
    let mut image = two();
    let text = String::from_utf8(image.config).unwrap().replace("amd64", "s390x");
    image.config = text.into_bytes();
    image.seal();
    let error = fails(&image, &fake).await;
    assert!(matches!(error, ImageError::Platform { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), c"size=3m").unwrap();
    let result = async {
        let fake = Fake::start(Auth::None).await;
        let image = Image::new(&[(tar(&[("x", &noise(3, 2_500_000))]), Coding::Gzip)]);
        image.publish(&fake, "1");
        let store = ImageStore::open(config(&small)).await.unwrap();
        let error = pull(&store, &fake.image("a:1")).await.unwrap_err();
        // What it brought is given back behind its back.
        let mut left = sampan_dir_size(&small);
        for _ in 0..500 {
            if left < 100_000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = sampan_dir_size(&small);
        }
        (error, left)
    }
    .await;
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    let (error, left) = result;
    assert!(matches!(error, ImageError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(left < 100_000, "{left} bytes are left behind");
}

fn sampan_dir_size(dir: &std::path::Path) -> u64 {
    let mut total = 0;
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        // (It may be going away.)
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() { todo.push(entry.path()) } else { total += meta.len() }
        }
    }
    total
}

//! What a store finds after its process was killed or the machine lost power.

use std::fs;

use sampan_runtime::images::{ImageStore, ImageStoreConfig};

use super::builder::{Coding, Image, assert_tidy, config, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake, Fault};

fn image() -> Image {
    Image::new(&[(tar(&[("a", b"1")]), Coding::Gzip), (tar(&[("b", b"2")]), Coding::Zstd)])
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_collected_and_images_stay() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "1");
    let name = fake.image("a:1");
    pull(&open(dir.path()).await, &name).await.unwrap();
    // Half a layer, half a database, a layer and a blob without image.
    fs::create_dir_all(dir.path().join("snapshots/tmp/half/fs/x")).unwrap();
    fs::write(dir.path().join("images/tmp-1"), "half").unwrap();
    fs::write(dir.path().join("content/ingest/tmp-1"), "half").unwrap();
    let stray = dir.path().join("snapshots").join("c".repeat(64));
    fs::create_dir_all(stray.join("fs")).unwrap();
    let blob = dir.path().join("content/blobs/sha256").join("d".repeat(64));
    fs::write(&blob, "stray").unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(48 * 3600);
    fs::File::options().write(true).open(&blob).unwrap().set_modified(old).unwrap();
    let store = open(dir.path()).await;
    let record = store.resolve(&name).unwrap().unwrap();
    assert_eq!(file_of(&store, &record, "a").unwrap(), b"1");
    assert_tidy(dir.path());
    assert!(!stray.exists() && !blob.exists());
    assert!(!dir.path().join("images/tmp-1").exists() && !dir.path().join("content/ingest/tmp-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_layers_are_unpacked_again_from_their_blobs() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "1");
    let name = fake.image("a:1");
    // Nothing is flushed: what a loss of power costs is the test's to say.
    let open =
        async || ImageStore::open(ImageStoreConfig { flush: false, ..config(dir.path()) }).await.unwrap();
    let record = pull(&open().await, &name).await.unwrap();
    let layer = dir.path().join("snapshots").join(record.layers[1].chain_id.hex());
    let lose = || {
        // As if the machine had lost power before the layer was flushed.
        let info = layer.join("layer.json");
        let text = fs::read_to_string(&info).unwrap();
        let start = text.find("\"bootId\":\"").unwrap() + 10;
        fs::write(&info, format!("{}0{}", &text[..start], &text[start + 1..])).unwrap();
        let _ = fs::remove_file(layer.join("synced"));
        fs::write(layer.join("fs/b"), "").unwrap();
    };
    lose();
    let asked = fake.seen().len();
    let store = open().await;
    let record = store.resolve(&name).unwrap().unwrap();
    assert_eq!(file_of(&store, &record, "b").unwrap(), b"2");
    assert_eq!(fake.seen().len(), asked, "without the registry");
    drop(store);
    // The blob is damaged as well: the image is forgotten, and a pull brings it back.
    lose();
    let blob = dir.path().join("content/blobs/sha256").join(record.layers[1].blob.digest.hex());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[10] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let store = open().await;
    assert!(store.resolve(&name).unwrap().is_none());
    let record = pull(&store, &name).await.unwrap();
    assert_eq!(file_of(&store, &record, "b").unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_did_not_wait_for_is_flushed_by_the_next_store() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "1");
    let hasty = ImageStoreConfig { flush: false, ..config(dir.path()) };
    let record = pull(&ImageStore::open(hasty).await.unwrap(), &fake.image("a:1")).await.unwrap();
    let synced =
        |chain: &sampan_oci::Digest| dir.path().join("snapshots").join(chain.hex()).join("synced").exists();
    assert!(!record.chain_ids().any(synced));
    let _store = open(dir.path()).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !record.chain_ids().all(synced) {
        assert!(std::time::Instant::now() < deadline, "it was never flushed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_said() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    fs::write(dir.path().join("images/images.json"), "{").unwrap();
    let error =
        sampan_runtime::images::ImageStore::open(super::builder::config(dir.path())).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_has_the_store_and_others_wait_for_it() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("made/by/the/store");
    let alone = || ImageStoreConfig { exclusive: true, ..config(&dir) };
    let first = ImageStore::open(alone()).await.unwrap();
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let busy = ImageStore::try_open(alone()).await.unwrap_err();
    assert!(matches!(busy, sampan_runtime::images::ImageError::Busy { .. }), "{busy}");
    // What the first one is at is not cleared away by the second.
    let staged = dir.join("snapshots/tmp/at-work");
    std::fs::create_dir(&staged).unwrap();
    let mut waiting = Box::pin(ImageStore::open(alone()));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), &mut waiting).await.is_err());
    assert!(staged.exists());
    drop(first);
    waiting.await.unwrap();
    assert!(!staged.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_blobs_count_as_used_space_and_are_pruned() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = Image::new(&[(tar(&[("low", &noise(1, 500_000))]), Coding::Gzip)]);
    image.publish(&fake, "1");
    let layer = image.layers[0].0.digest.to_string();
    fake.fault(&layer, 1, Fault::Cut(100_000));
    fake.fault(&layer, 99, Fault::Cut(0));
    let store = open(dir.path()).await;
    pull(&store, &fake.image("a:1")).await.unwrap_err();
    let half = dir.path().join(format!("content/ingest/sha256-{}", image.layers[0].0.digest.hex()));
    // The threads of a failed pull end on their own.
    for _ in 0..500 {
        if half.metadata().is_ok_and(|meta| meta.len() == 100_000) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(store.fs_info().await.unwrap().used_bytes >= 100_000);
    let removed = store.prune(std::collections::HashSet::new()).await.unwrap();
    assert!(removed.bytes >= 100_000 && !half.exists(), "{removed:?}");
}

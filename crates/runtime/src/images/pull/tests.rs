//! What is recorded when nobody waits for it any more.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::images::ImageStoreConfig;

/// An archive of an image without layers, and the image's id.
fn archive() -> (Vec<u8>, Digest) {
    let config = br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = json!([{ "Config": "config.json", "Layers": [] }]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [("config.json", config.as_slice()), ("manifest.json", manifest.as_bytes())] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    (tar.into_inner().unwrap(), Digest::sha256(config))
}

async fn open(dir: &tempfile::TempDir) -> Arc<ImageStore> {
    ImageStore::open(ImageStoreConfig::new(dir.path())).await.unwrap()
}

/// Somebody who is writing records until told to end: others wait.
fn begin_writing(store: &Arc<ImageStore>) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (begin, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    let store = store.clone();
    let writing = std::thread::spawn(move || {
        let written = store.database.change(|_| {
            begin.send(()).unwrap();
            ended.recv().unwrap();
            Ok(())
        });
        written.unwrap();
    });
    begun.recv().unwrap();
    (end, writing)
}

async fn collect(store: &Arc<ImageStore>) {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.collect(None)).await.unwrap().unwrap();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The image is recorded, and all of it is there.
async fn assert_kept(store: &ImageStore, id: &Digest) {
    until("the image is recorded", || store.database.images().contains_key(id)).await;
    for digest in needed(&store.database.images()[id]) {
        assert!(store.content.path(&digest).exists(), "{digest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_load_records_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (end, writing) = begin_writing(&store);
    let (archive, id) = archive();
    let loaded = store.clone();
    let load = tokio::spawn(async move { loaded.load(Cursor::new(archive)).await });
    until("the image is stored", || store.content.path(&id).exists()).await;
    // The record comes within a moment after the content.
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled());
    collect(&store).await;
    end.send(()).unwrap();
    assert_kept(&store, &id).await;
    writing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pull_records_that_brings_only_a_name_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let image = store.load(Cursor::new(archive().0)).await.unwrap().remove(0);
    let digest = image.manifest.as_ref().unwrap().digest.clone();
    let lease = store.leases.open();
    lease.hold(needed(&image)).await;
    // Removed just after the pull has found it complete.
    let removed = store.database.change(|images| {
        images.clear();
        Ok(())
    });
    removed.unwrap();
    let (end, writing) = begin_writing(&store);
    let reference = Reference::parse("reg.lan/app:1").unwrap();
    let again = store.record_again(&image, &reference, None, &digest, lease);
    assert!(tokio::time::timeout(Duration::from_millis(50), again).await.is_err());
    collect(&store).await;
    end.send(()).unwrap();
    assert_kept(&store, &image.id).await;
    writing.join().unwrap();
}

//! Archives of other tools and our own.

use std::io::Cursor;
use std::time::Duration;

use sampan_cri::archives::Chunk;
use sampan_oci::Digest;
use sampan_oci::manifest::media_type;
use sampan_runtime::image_service;
use sampan_runtime::images::{ArchiveFormat, ImageStore, ImageStoreConfig};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::builder::{Coding, Image, assert_tidy, config, encode, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake};

fn image() -> Image {
    Image::new(&[
        (tar(&[("low", &noise(1, 100_000))]), Coding::Plain),
        (tar(&[("top", b"top")]), Coding::Plain),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_can_be_loaded() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "1");
    let store = open(&dir.path().join("one")).await;
    let name = fake.image("a/b:1");
    pull(&store, &name).await.unwrap();
    for (i, format) in [ArchiveFormat::Oci, ArchiveFormat::Docker].into_iter().enumerate() {
        let saved = store.save(std::slice::from_ref(&name), format, Vec::new()).await.unwrap();
        for (j, coding) in [Coding::Plain, Coding::Gzip, Coding::Zstd].into_iter().enumerate() {
            let place = dir.path().join(format!("two-{i}-{j}"));
            let other = open(&place).await;
            let loaded = other.load(Cursor::new(encode(&saved, coding))).await.unwrap();
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].id, image().id());
            assert_eq!(loaded[0].repo_tags, std::slice::from_ref(&name));
            assert_eq!(file_of(&other, &loaded[0], "low").unwrap(), noise(1, 100_000));
            assert_tidy(&place);
        }
    }
    assert!(store.save(&["nothing".to_owned()], ArchiveFormat::Oci, Vec::new()).await.is_err());
}

/// A pod may name the image by its digest, also where only the archive has been.
#[tokio::test(flavor = "multi_thread")]
async fn digests_are_names_on_the_other_side_too() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "1");
    let by_digest = format!("{}@{}", fake.image("a/b"), image().digest());
    for (i, pulled) in [by_digest.clone(), fake.image("a/b:1")].into_iter().enumerate() {
        let store = open(&dir.path().join(format!("one-{i}"))).await;
        pull(&store, &pulled).await.unwrap();
        let saved = store.save(std::slice::from_ref(&pulled), ArchiveFormat::Oci, Vec::new()).await.unwrap();
        let other = open(&dir.path().join(format!("two-{i}"))).await;
        other.load(Cursor::new(saved)).await.unwrap();
        let with_both = format!("{}@{}", fake.image("a/b:1"), image().digest());
        for name in [&pulled, &by_digest, &with_both] {
            assert_eq!(
                other.resolve(name).unwrap().map(|found| found.id.clone()),
                Some(image().id()),
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_an_index_is_a_name_although_only_one_platform_is_saved() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    image().publish(&fake, "");
    let elsewhere = Image::new(&[(tar(&[("other", b"x")]), Coding::Plain)]);
    let entries = [
        elsewhere.entry(json!({"os": "linux", "architecture": "s390x"})),
        image().entry(json!({"os": "linux", "architecture": "amd64"})),
    ];
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let index = index.to_string().into_bytes();
    let name = format!("{}@{}", fake.image("a/b"), Digest::sha256(&index));
    fake.manifest("1", media_type::OCI_INDEX, index);
    let store = open(&dir.path().join("one")).await;
    pull(&store, &name).await.unwrap();
    for (i, asked) in [name.clone(), image().id().to_string()].into_iter().enumerate() {
        let saved = store.save(&[asked], ArchiveFormat::Oci, Vec::new()).await.unwrap();
        let other = open(&dir.path().join(format!("two-{i}"))).await;
        let loaded = other.load(Cursor::new(saved)).await.unwrap();
        assert_eq!(loaded[0].repo_digests, std::slice::from_ref(&name));
        assert_eq!(other.resolve(&name).unwrap().map(|found| found.id.clone()), Some(image().id()));
    }
}

/// The archive may be gone by the time that the power is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_over_the_socket_is_on_the_disk_when_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is flushed but what the answer waits for.
    let store = ImageStore::open(ImageStoreConfig { flush: false, ..config(dir.path()) }).await.unwrap();
    let (socket, shutdown) = (dir.path().join("images.sock"), CancellationToken::new());
    let (path, served, stop) = (socket.clone(), store.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { image_service::serve(&path, served, stop).await });
    let endpoint = format!("unix://{}", socket.display());
    let mut client = loop {
        match sampan_cri::client::connect(&endpoint).await {
            Ok(client) => break client,
            Err(error) => assert!(!serving.is_finished(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let image = image();
    let manifest = json!([{ "Config": "abc.json", "Layers": ["low", "top"] }]).to_string();
    let data = tar(&[
        ("low", &image.layers[0].1),
        ("top", &image.layers[1].1),
        ("abc.json", &image.config),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let loaded = client.archives.load(futures::stream::iter([Chunk { data }])).await.unwrap();
    assert_eq!(loaded.into_inner().images, [image.id().to_string()]);
    for layer in store.list()[0].chain_ids() {
        assert!(dir.path().join("snapshots").join(layer.hex()).join("synced").exists(), "{layer}");
    }
    drop(client);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_save_wrote_for_years() {
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let manifest = json!([{ "Config": "abc.json", "RepoTags": ["team/app:1", "app:2"],
        "Layers": ["l1/layer.tar", "l2/layer.tar"] }])
    .to_string();
    let mut archive = tar::Builder::new(tar(&[
        ("l1/layer.tar", &image.layers[0].1),
        ("abc.json", &image.config),
        ("real/layer.tar", &image.layers[1].1),
        ("manifest.json", manifest.as_bytes()),
    ]));
    // The builder's end marker is in the way; links come first.
    let mut links = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    links.append_link(&mut header, "l2/layer.tar", "../real/layer.tar").unwrap();
    let mut bytes = links.into_inner().unwrap();
    bytes.truncate(512);
    bytes.extend_from_slice(archive.get_mut());
    let store = open(dir.path()).await;
    let loaded = store.load(Cursor::new(bytes)).await.unwrap();
    assert_eq!(loaded[0].repo_tags, ["docker.io/team/app:1", "docker.io/library/app:2"]);
    assert_eq!(file_of(&store, &loaded[0], "top").unwrap(), b"top");
    assert!(store.resolve("app:2").unwrap().is_some());
    assert!(loaded[0].repo_digests.is_empty());
    // What docker wrote can be saved as a layout.
    store.save(&["app:2".to_owned()], ArchiveFormat::Oci, Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_are_errors_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let image = image();
    let missing = json!([{ "Config": "abc.json", "Layers": ["gone.tar"] }]).to_string();
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"no tar at all, but long enough to be looked at".repeat(50),
        tar(&[("hello", b"x")]),
        tar(&[("manifest.json", b"{")]),
        tar(&[("manifest.json", missing.as_bytes()), ("abc.json", &image.config)]),
        tar(&[("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)]),
    ];
    for case in cases {
        assert!(store.load(Cursor::new(case)).await.is_err());
    }
    assert!(store.list().is_empty());
    let left: Vec<_> = std::fs::read_dir(dir.path().join("content/ingest")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_twice_does_not_take_the_place_of_another() {
    let (image, other) = (image(), noise(7, 3000));
    let manifest = json!([{ "Config": "abc.json", "Layers": ["low", "top"] }]).to_string();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    // The second "low" replaces the first; what follows must not be written over the second.
    let archive = tar(&[
        ("low", b"in vain"),
        ("low", &image.layers[0].1),
        ("top", &image.layers[1].1),
        ("more", &other),
        ("abc.json", &image.config),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let loaded = store.load(Cursor::new(archive)).await.unwrap();
    assert_eq!(file_of(&store, &loaded[0], "low").unwrap(), noise(1, 100_000));
    assert_eq!(file_of(&store, &loaded[0], "top").unwrap(), b"top");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_names_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let names: Vec<String> = (0..3000).map(|index| format!("{}{index}", "name/".repeat(600))).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = store.load(Cursor::new(tar(&files))).await.unwrap_err().to_string();
    assert!(error.contains("has names of more than 8 MiB"), "{error}");
}

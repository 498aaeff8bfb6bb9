//! Layers meant to do harm, through a whole pull. (What a tar can say is tested in the unpacker itself.)

use sampan_runtime::images::{ImageError, ImageStore};

use super::builder::{Coding, Image, assert_tidy, config, file_of, open, pull, tar};
use super::fake::{Auth, Fake};

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_climb_stay_in_their_layer() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let mut bytes = tar(&[("AAAAAAAAAAAA/evil", b"x")]);
    bytes[..12].copy_from_slice(b"../../../../");
    bytes[12..17].copy_from_slice(b"/evil");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    Image::new(&[(bytes, Coding::Gzip)]).publish(&fake, "1");
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a:1")).await.unwrap();
    assert_eq!(file_of(&store, &record, "evil").unwrap(), b"x");
    for up in ["snapshots/evil", "evil", "../evil"] {
        assert!(!dir.path().join(up).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_bounded() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    // 64 MiB of zeros in 64 KiB.
    let bomb = Image::new(&[(tar(&[("zeros", &vec![0; 64 << 20])]), Coding::Gzip)]);
    bomb.publish(&fake, "1");
    let mut settings = config(dir.path());
    settings.limits.max_bytes = 16 << 20;
    let store = ImageStore::open(settings.clone()).await.unwrap();
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err();
    assert!(matches!(error, ImageError::Unpack { .. }), "{error:?}");
    assert!(error.chain().contains("larger than the 16777216 bytes"), "{}", error.chain());
    settings.limits.max_bytes = 1 << 40;
    settings.limits.ratio_from = 8 << 20;
    settings.limits.max_ratio = 100;
    let store = ImageStore::open(settings).await.unwrap();
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains("decompression bomb"), "{error}");
    assert_tidy(dir.path());
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_entries_are_bounded() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let mut one = tar(&[("f", b"")]);
    one.truncate(512);
    let many = one.repeat(100_000);
    Image::new(&[(many, Coding::Gzip)]).publish(&fake, "1");
    let mut settings = config(dir.path());
    settings.limits.max_entries = 50_000;
    let store = ImageStore::open(settings).await.unwrap();
    let error = pull(&store, &fake.image("a:1")).await.unwrap_err().chain();
    assert!(error.contains("more than the 50000 entries"), "{error}");
    assert_tidy(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_streams_are_errors() {
    let fake = Fake::start(Auth::None).await;
    let whole = tar(&[("f", &[7; 100_000])]);
    for (i, coding) in [Coding::Gzip, Coding::Zstd, Coding::Plain].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Image::new(&[(whole.clone(), coding)]);
        let half = image.layers[0].1.len() / 2;
        image.layers[0].1.truncate(half);
        let media_type = image.layers[0].0.media_type.clone();
        image.layers[0].0 = sampan_oci::Descriptor::of(&media_type, &image.layers[0].1);
        image.seal();
        image.publish(&fake, &format!("c{i}"));
        let store = open(dir.path()).await;
        let error = pull(&store, &fake.image(&format!("a:c{i}"))).await.unwrap_err();
        assert!(matches!(error, ImageError::Unpack { .. } | ImageError::DiffId { .. }), "{error:?}");
        assert!(store.list().is_empty());
    }
}

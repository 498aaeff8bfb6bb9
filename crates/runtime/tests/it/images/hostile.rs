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

#[test]
fn mutated_layers_stay_inside_and_are_bounded() {
    let top = tempfile::tempdir().unwrap();
    let good =
        tar(&[("dir/", b""), ("dir/file", b"some content"), (".wh.gone", b""), ("dir/.wh..wh..opq", b"")]);
    let seeds = [
        good.clone(),
        super::builder::encode(&good, Coding::Gzip),
        super::builder::encode(&good, Coding::Zstd),
    ];
    let mut state = 0x5eed_u64;
    let mut roll = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % sides
    };
    for round in 0..600 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=roll(5) {
            let at = roll(bytes.len());
            match roll(4) {
                0 => bytes[at] ^= 1 << roll(8),
                1 => bytes[at] = b"/.\0w01257x"[roll(10)],
                2 => bytes.truncate(at + 1),
                _ => {
                    let block = bytes[at / 512 * 512..].iter().take(512).copied().collect::<Vec<_>>();
                    bytes.splice(0..0, block);
                }
            }
        }
        if round % 3 == 0 {
            // Headers that are right again, or most would be refused for their checksums.
            for block in bytes.chunks_exact_mut(512) {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let dir = top.path().join(format!("{round}/layer"));
        std::fs::create_dir_all(&dir).unwrap();
        sampan_runtime::fuzzing::layer(&bytes, &dir);
        let beside: Vec<_> = std::fs::read_dir(dir.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(beside.len(), 1, "round {round}: {beside:?}");
    }
}

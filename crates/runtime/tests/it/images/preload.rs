//! Archives that are there before the node starts, or come while it runs; and pins.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_runtime::images::{ArchiveFormat, ImageError, ImageStore};
use tokio_util::sync::CancellationToken;

use super::builder::{Coding, Image, encode, open, pull, tar};
use super::fake::{Auth, Fake};

async fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    Image::new(&[(tar(&[("x", content)]), Coding::Gzip)]).publish(&fake, "1");
    let store = open(dir.path()).await;
    let pulled = pull(&store, &fake.image("a:1")).await.unwrap();
    let saved = store.save(&[pulled.id.to_string()], ArchiveFormat::Docker, Vec::new()).await.unwrap();
    // The registry's name has a port of that moment: another one is put in, of the same length.
    let from = fake.image("a:1");
    let to = format!("{name:-<width$}:1", width = from.len() - 2);
    let mut text = saved;
    while let Some(at) = text.windows(from.len()).position(|w| w == from.as_bytes()) {
        text[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    text
}

async fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn watch(store: &Arc<ImageStore>, dir: &Path) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(store.clone().preload(dir.to_path_buf(), stop)))
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_loaded_at_the_start_and_when_they_appear() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archives) = (dir.path().join("data"), dir.path().join("images"));
    std::fs::create_dir(&archives).unwrap();
    std::fs::write(archives.join("first.tar"), archive("one", b"1").await).unwrap();
    std::fs::write(archives.join("broken.tar"), b"no tar").unwrap();
    std::fs::write(archives.join("list.txt"), b"busybox").unwrap();
    // A layout, as its directory.
    let layout = archives.join("layout");
    tar::Archive::new(&archive("four", b"4").await[..]).unpack(&layout).unwrap();
    let store = open(&data).await;
    let (stop, task) = watch(&store, &archives);
    eventually("the first", || store.list().len() == 2).await;
    tar::Archive::new(&archive("five", b"5").await[..]).unpack(dir.path().join("new")).unwrap();
    std::fs::rename(dir.path().join("new"), archives.join("new")).unwrap();
    eventually("the one that was moved in", || store.list().len() == 3).await;
    // One that grows slowly, one that is moved in.
    let second = encode(&archive("two", b"2").await, Coding::Zstd);
    let mut file = std::fs::File::create(archives.join("second.tar.zst")).unwrap();
    std::io::Write::write_all(&mut file, &second[..second.len() / 2]).unwrap();
    std::fs::write(dir.path().join("third"), encode(&archive("three", b"3").await, Coding::Gzip)).unwrap();
    std::fs::rename(dir.path().join("third"), archives.join("third.tgz")).unwrap();
    eventually("the third", || store.list().len() == 4).await;
    std::io::Write::write_all(&mut file, &second[second.len() / 2..]).unwrap();
    drop(file);
    eventually("the second", || store.list().len() == 5 && store.list().iter().all(|i| i.pinned)).await;
    let record = data.join("images/preloaded.json");
    eventually("the note of it", || {
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("second.tar.zst"))
    })
    .await;
    // Pinned images stay.
    assert!(store.prune(Default::default()).await.unwrap().deleted.is_empty());
    stop.cancel();
    task.await.unwrap();
    // The next start finds them loaded; what somebody removed comes again, what somebody unpinned stays so.
    let images = store.list();
    store.set_pinned(&images[0].id.to_string(), false).await.unwrap();
    store.remove_image(&images[1].id.to_string()).await.unwrap();
    drop(store);
    let store = open(&data).await;
    let (stop, task) = watch(&store, &archives);
    eventually("the removed one", || store.list().len() == 5).await;
    assert!(!store.resolve(&images[0].id.to_string()).unwrap().unwrap().pinned);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_survive_and_unknown_names_are_errors() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    Image::new(&[(tar(&[("x", b"1")]), Coding::Gzip)]).publish(&fake, "1");
    let store = open(dir.path()).await;
    let name = fake.image("a:1");
    pull(&store, &name).await.unwrap();
    assert!(store.set_pinned(&name, true).await.unwrap().pinned);
    assert!(pull(&store, &name).await.unwrap().pinned, "pulling again changes nothing");
    assert!(store.prune(Default::default()).await.unwrap().deleted.is_empty());
    let store = open(dir.path()).await;
    assert!(store.resolve(&name).unwrap().unwrap().pinned);
    store.set_pinned(&name, false).await.unwrap();
    assert_eq!(store.prune(Default::default()).await.unwrap().deleted.len(), 1);
    assert!(matches!(store.set_pinned(&name, true).await, Err(ImageError::NotFound(_))));
}

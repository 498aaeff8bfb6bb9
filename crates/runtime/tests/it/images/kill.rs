//! `kill -9` in the middle of a pull: what is left is never wrong, and never fetched twice.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use sampan_runtime::images::{PullProgress, PullRequest};

use super::builder::{Coding, Image, assert_tidy, file_of, noise, open, pull, tar};
use super::fake::{Auth, Fake, Fault};

/// The child: pulls an image, and with `suicide` kills itself once all layers are there, before the image is
/// recorded. `CHILD DIR IMAGE [suicide]`.
pub(crate) fn child(mut args: impl Iterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
    let mut next = || args.next().unwrap().into_string().unwrap();
    let (dir, image) = (next(), next());
    let suicide = args.next().is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir)).await;
        let (progress, mut told) = tokio::sync::watch::channel(PullProgress::default());
        if suicide {
            std::thread::spawn(move || {
                loop {
                    let state = told.borrow_and_update().clone();
                    if !state.layers.is_empty() && state.finished() == state.layers.len() {
                        rustix::process::kill_process(
                            rustix::process::getpid(),
                            rustix::process::Signal::KILL,
                        )
                        .unwrap();
                    }
                }
            });
        }
        let request = PullRequest { image, progress: Some(progress), ..Default::default() };
        store.pull(request).await.unwrap();
    });
    std::process::ExitCode::SUCCESS
}

/// Kills what is left of the child when a test fails.
struct Pulling(Child);

impl Pulling {
    fn start(dir: &Path, image: &str, suicide: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("pull-and-die").arg(dir).arg(image);
        if suicide {
            command.arg("suicide");
        }
        Self(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn image() -> Image {
    let many: Vec<(String, Vec<u8>)> = (0..2000).map(|i| (format!("many/{i}"), noise(i, 300))).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    Image::new(&[
        (tar(&[("low", &noise(1, 400_000))]), Coding::Gzip),
        (tar(&many), Coding::Gzip),
        (tar(&[("top", &noise(2, 400_000))]), Coding::Gzip),
    ])
}

/// A restart: the image comes, right, and the layers that were complete are not asked for again.
async fn recovers(fake: &Fake, dir: &Path, image: &Image, complete: &[usize], resumed: &[usize]) {
    fake.state.lock().unwrap().faults.clear();
    let before: Vec<usize> = (0..3).map(|i| fetches(fake, image, i)).collect();
    let store = open(dir).await;
    assert_tidy(dir);
    let name = fake.image("a/b:1");
    assert!(store.resolve(&name).unwrap().is_none(), "what was not recorded is not there");
    let record = pull(&store, &name).await.unwrap();
    assert_eq!(file_of(&store, &record, "low").unwrap(), noise(1, 400_000));
    assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 400_000));
    for i in (0..2000).step_by(97) {
        assert_eq!(file_of(&store, &record, &format!("many/{i}")).unwrap(), noise(i, 300));
    }
    for i in complete {
        assert_eq!(fetches(fake, image, *i), before[*i], "layer {i} was complete");
    }
    for i in resumed {
        let digest = image.layers[*i].0.digest.to_string();
        let last = fake.seen().into_iter().rfind(|s| s.line.contains(&digest)).unwrap();
        assert!(last.range.is_some(), "layer {i} is continued: {last:?}");
    }
    assert_tidy(dir);
    let left = std::fs::read_dir(dir.join("content/ingest")).unwrap().count();
    assert_eq!(left, 0, "nothing half is left");
}

fn fetches(fake: &Fake, image: &Image, layer: usize) -> usize {
    fake.count(&format!("blobs/{}", image.layers[layer].0.digest))
}

fn blob_of(dir: &Path, image: &Image, layer: usize) -> std::path::PathBuf {
    dir.join("content/blobs/sha256").join(image.layers[layer].0.digest.hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_downloading() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = image();
    image.publish(&fake, "1");
    fake.fault(&format!("blobs/{}", image.layers[2].0.digest), 1, Fault::Stall(200_000));
    let child = Pulling::start(dir.path(), &fake.image("a/b:1"), false);
    let ingest = dir.path().join(format!("content/ingest/sha256-{}", image.layers[2].0.digest.hex()));
    eventually("most of the last blob", || {
        std::fs::metadata(&ingest).is_ok_and(|m| m.len() >= 190_000)
            && blob_of(dir.path(), &image, 0).exists()
            && blob_of(dir.path(), &image, 1).exists()
    })
    .await;
    child.kill();
    recovers(&fake, dir.path(), &image, &[0, 1], &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_unpacking() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = image();
    image.publish(&fake, "1");
    let size = image.layers[1].1.len();
    // All but its end: most files are there, the layer is not.
    fake.fault(&format!("blobs/{}", image.layers[1].0.digest), 1, Fault::Stall(size - 100));
    let child = Pulling::start(dir.path(), &fake.image("a/b:1"), false);
    let staged = dir.path().join("snapshots/tmp");
    eventually("many unpacked files", || {
        let dirs = std::fs::read_dir(&staged).into_iter().flatten().flatten();
        dirs.filter_map(|d| std::fs::read_dir(d.path().join("fs/many")).ok()).any(|d| d.count() > 1000)
            && blob_of(dir.path(), &image, 0).exists()
            && blob_of(dir.path(), &image, 2).exists()
    })
    .await;
    child.kill();
    assert!(std::fs::read_dir(&staged).unwrap().count() > 0, "half a layer is left");
    recovers(&fake, dir.path(), &image, &[0, 2], &[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_unpacking_and_recording() {
    for _ in 0..5 {
        let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
        let image = image();
        image.publish(&fake, "1");
        let mut child = Pulling::start(dir.path(), &fake.image("a/b:1"), true);
        child.0.wait().unwrap();
        if dir.path().join("images/images.json").exists() {
            // It got further than meant: whole, then.
            let store = open(dir.path()).await;
            let record = store.resolve(&fake.image("a/b:1")).unwrap().unwrap();
            assert_eq!(file_of(&store, &record, "top").unwrap(), noise(2, 400_000));
            continue;
        }
        recovers(&fake, dir.path(), &image, &[0, 1, 2], &[]).await;
        return;
    }
    panic!("five times the record was faster than the signal");
}

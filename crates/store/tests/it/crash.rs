//! `kill -9` at any moment keeps every acknowledged write.
//!
//! The test binary starts itself as a writer that prints each revision once it is acknowledged, kills it at
//! seeded moments, opens the store and compares.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use sampan_store::embedded::{Embedded, Options};
use sampan_store::{KeyRange, Revision, Store};

use crate::embedded::put;

const DIRECTORY: &str = "SAMPAN_STORE_TEST_DIRECTORY";

/// The child's side; does nothing unless the test below starts it.
#[test]
#[ignore = "started by kill_9_keeps_every_acknowledged_write"]
fn writer() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let options = Options { history: 200, ..Options::default() };
        let store = Embedded::open_with(directory.as_ref(), options).unwrap();
        let writers = (0..4).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    // The value says at which key and turn it was written.
                    let key = format!("key/{writer}/{}", number % 20);
                    let value = format!("{key}={number};{}", "x".repeat(number % 5000));
                    let revision = put(&store, &key, value.as_bytes()).await.unwrap();
                    let line = format!("{} {key} {number}\n", revision.0);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

#[tokio::test]
async fn kill_9_keeps_every_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut acknowledged: Vec<(i64, String, usize)> = Vec::new();
    for _ in 0..12 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_micros(20_000 + (random >> 33) % 180_000);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::writer", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while let Some(Ok(line)) = lines.next() {
                let words: Vec<_> = line.split(' ').collect();
                if let [revision, key, number] = words[..]
                    && let (Ok(revision), Ok(number)) = (revision.parse(), number.parse())
                {
                    seen.push((revision, key.to_owned(), number));
                }
            }
            seen
        });
        tokio::time::sleep(moment).await;
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        check(directory.path(), &acknowledged).await;
    }
    assert!(acknowledged.len() > 50, "only {} writes were made before the kills", acknowledged.len());
}

async fn check(directory: &std::path::Path, acknowledged: &[(i64, String, usize)]) {
    let store = Embedded::open(directory).unwrap();
    let newest = acknowledged.iter().map(|(revision, ..)| *revision).max().unwrap_or(0);
    let now = store.revision().await.unwrap();
    assert!(now.0 >= newest, "revision {newest} was acknowledged, the store is at {}", now.0);
    let current = store.range(crate::embedded::all()).await.unwrap();
    for (revision, key, number) in acknowledged {
        let kv =
            current.kvs.iter().find(|kv| *kv.key == *key.as_bytes()).expect("an acknowledged key is there");
        assert!(kv.mod_revision.0 >= *revision, "{key} lost revision {revision}");
        if kv.mod_revision.0 == *revision {
            assert!(kv.value.starts_with(format!("{key}={number};").as_bytes()));
        }
    }
    // The log is whole too: every revision that is kept can be replayed, without a gap.
    let from = Revision((now.0 - 150).max(2));
    let mut changes = store.watch(KeyRange::prefix("key/"), Some(from)).await.unwrap();
    changes.next().await.unwrap().unwrap();
    for revision in from.0..=now.0 {
        assert_eq!(changes.next().await.unwrap().unwrap().revision.0, revision);
    }
}

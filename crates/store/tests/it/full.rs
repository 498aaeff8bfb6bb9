//! A full disk: writes are refused with a clear error, reads go on, and deleting makes room again.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sampan_store::embedded::{Embedded, Options};
use sampan_store::{Error, Op, Store, Txn};

use crate::embedded::{all, put};

/// A small file system of its own.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), c"size=12m").unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Writes until it fails; returns how many were written and the error.
async fn fill(store: &Embedded) -> (usize, Error) {
    for number in 0.. {
        if let Err(error) = put(store, &format!("key/{number:04}"), &vec![b'v'; 20_000]).await {
            return (number, error);
        }
    }
    unreachable!("a small disk gets full")
}

#[tokio::test]
async fn full_disk_refuses_writes_and_keeps_reading() {
    let disk = Small::new();
    let options = Options { history: 100, reserve_bytes: 4 << 20, ..Options::default() };
    let store = Embedded::open_with(disk.path(), options).unwrap();
    let (written, error) = fill(&store).await;
    assert!(matches!(&error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("no space left"));
    assert_eq!(store.range(all()).await.unwrap().count, written);
    let then = (0..written).map(|number| Op::Delete(format!("key/{number:04}").into())).collect();
    let revision = store.txn(Txn { then, ..Txn::default() }).await.unwrap().revision;
    store.compact(revision).await.unwrap();
    assert_eq!(store.range(all()).await.unwrap().count, 0);
}

/// The same when the check of the free space was too optimistic and redb itself runs into the wall.
#[tokio::test]
async fn failed_commit_takes_back_to_the_last_good_one() {
    let disk = Small::new();
    let options = Options { reserve_bytes: 0, ..Options::default() };
    let store = Embedded::open_with(disk.path(), options).unwrap();
    let (written, error) = fill(&store).await;
    assert!(matches!(&error, Error::Embedded { .. }), "{error:?}");
    assert!(written > 100);
    let read = store.range(all()).await.unwrap();
    assert_eq!(read.count, written);
    drop(store);
    let store = Embedded::open_with(disk.path(), options).unwrap();
    assert_eq!(store.range(all()).await.unwrap().count, written);
}

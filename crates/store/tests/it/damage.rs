//! A directory that is in use, and files that are not what was written.

use std::fs::OpenOptions;
use std::path::Path;

use sampan_store::embedded::Embedded;
use sampan_store::{Error, Store};

use crate::embedded::{all, put};

/// A store with some content; returns the bytes of its file.
fn filled(directory: &Path) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = Embedded::open(directory).unwrap();
        for number in 0..50 {
            put(&store, &format!("key/{number}"), &vec![b'v'; 2000]).await.unwrap();
        }
    });
    std::fs::read(directory.join("store.redb")).unwrap()
}

fn assert_damaged(directory: &Path, what: &str) {
    let before = std::fs::read(directory.join("store.redb")).unwrap();
    let error = Embedded::open(directory).expect_err(what);
    assert!(matches!(error, Error::Damaged { .. }), "{what}: {error:?}");
    let text = error.to_string();
    assert!(text.contains("store.redb") && text.contains("backup"), "{text}");
    // Never recreated: a second look finds the same.
    assert_eq!(std::fs::read(directory.join("store.redb")).unwrap().len(), before.len(), "{what}");
    assert!(Embedded::open(directory).is_err(), "{what}");
}

#[test]
fn second_opener_learns_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = Embedded::open(directory.path()).unwrap();
    let error = Embedded::open(directory.path()).unwrap_err();
    assert!(matches!(&error, Error::Locked { pid, .. } if *pid == std::process::id()), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&std::process::id().to_string()) && text.contains(directory.path().to_str().unwrap())
    );
    drop(first);
    Embedded::open(directory.path()).unwrap();
}

#[test]
fn truncated_file_is_reported() {
    for keep in [0, 1, 100, 4096, 20_000] {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let file = OpenOptions::new().write(true).open(directory.path().join("store.redb")).unwrap();
        file.set_len(keep).unwrap();
        assert_damaged(directory.path(), &format!("truncated to {keep} bytes"));
    }
}

#[test]
fn foreign_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("store.redb"), vec![b'#'; 100_000]).unwrap();
    assert_damaged(directory.path(), "not a database");
}

#[test]
fn other_redb_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    redb::Database::create(directory.path().join("store.redb")).unwrap();
    for _ in 0..2 {
        let error = Embedded::open(directory.path()).unwrap_err();
        assert!(matches!(&error, Error::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("not a store"), "{error}");
    }
}

#[test]
fn flipped_bits_are_never_taken_for_data() {
    let directory = tempfile::tempdir().unwrap();
    let good = filled(directory.path());
    let path = directory.path().join("store.redb");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut noticed = 0;
    for step in 0..60 {
        let mut bad = good.clone();
        let start = step * (good.len() / 60);
        let end = (start + 64).min(bad.len());
        bad[start..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, bad).unwrap();
        match Embedded::open(directory.path()) {
            Err(Error::Damaged { .. }) => noticed += 1,
            Err(error) => panic!("at {start}: {error:?}"),
            // The damage hit a page that is not in use.
            Ok(store) => {
                let all = runtime.block_on(store.range(all())).unwrap();
                assert!(all.kvs.iter().all(|kv| *kv.value == [b'v'; 2000]), "at {start}");
                assert_eq!(all.count, 50, "at {start}");
            }
        }
    }
    assert!(noticed > 0);
}

#[test]
fn interrupted_creation_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("store.redb.new"), b"half").unwrap();
    Embedded::open(directory.path()).unwrap();
    assert!(!directory.path().join("store.redb.new").exists());
}

//! Writes: revisions, versions, comparisons.

use std::sync::Arc;

use super::words::{bytes, get, pairs, put, put_if, put_op, range, under, write};
use crate::{Compare, Error, Op, Revision, Store, Txn};

pub(super) async fn put_grows_revision_by_one(store: Arc<dyn Store>) {
    let before = store.revision().await.expect("a revision");
    assert!(before.0 >= 1, "an empty store has revision 1");
    let first = put(&*store, "put/a", "1").await;
    let second = put(&*store, "put/b", "2").await;
    assert_eq!(first, Revision(before.0 + 1));
    assert_eq!(second, Revision(before.0 + 2));
    assert_eq!(store.revision().await.expect("a revision"), second);
    let kv = get(&*store, "put/a").await.expect("the key is there");
    assert_eq!((kv.value, kv.create_revision, kv.mod_revision, kv.version), (bytes("1"), first, first, 1));
}

pub(super) async fn versions_count_writes_since_creation(store: Arc<dyn Store>) {
    let created = put(&*store, "version/a", "1").await;
    let changed = put(&*store, "version/a", "2").await;
    let kv = get(&*store, "version/a").await.expect("the key is there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, changed, 2));
    write(&*store, vec![Op::Delete(bytes("version/a"))]).await;
    assert_eq!(get(&*store, "version/a").await, None);
    let again = put(&*store, "version/a", "3").await;
    let kv = get(&*store, "version/a").await.expect("the key is there again");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
}

pub(super) async fn failed_comparison_writes_nothing_and_reads(store: Arc<dyn Store>) {
    let made = put_if(&*store, "cas/a", "1", Revision(0)).await;
    assert!(made.succeeded);
    let shown = made.read[0].clone().expect("reads come after the writes");
    assert_eq!((shown.mod_revision, shown.value), (made.revision, bytes("1")));
    let refused = put_if(&*store, "cas/a", "2", Revision(0)).await;
    assert!(!refused.succeeded);
    assert_eq!(refused.revision, made.revision, "nothing was written");
    assert_eq!(refused.read[0].as_ref().map(|kv| kv.value.clone()), Some(bytes("1")));
    let changed = put_if(&*store, "cas/a", "3", made.revision).await;
    assert!(changed.succeeded);
    let absent = store
        .txn(Txn { read: vec![bytes("cas/none"), bytes("cas/a")], ..Txn::default() })
        .await
        .expect("a transaction may only read");
    assert!(absent.read[0].is_none());
    assert_eq!(absent.read[1].as_ref().map(|kv| kv.value.clone()), Some(bytes("3")));
}

pub(super) async fn many_keys_change_in_one_revision(store: Arc<dyn Store>) {
    put(&*store, "many/old", "x").await;
    let ops = vec![put_op("many/a", "1", 0), put_op("many/b", "2", 0), Op::Delete(bytes("many/old"))];
    let revision = write(&*store, ops).await;
    let all = range(&*store, under("many/")).await;
    assert!(all.kvs.iter().all(|kv| kv.mod_revision == revision));
    assert_eq!(pairs(&all.kvs), super::words::expected(&[("many/a", "1"), ("many/b", "2")]));
    let txn = Txn {
        when: vec![
            Compare::ModRevision(bytes("many/a"), revision),
            Compare::ModRevision(bytes("many/b"), Revision(revision.0 - 1)),
        ],
        then: vec![Op::Delete(bytes("many/a"))],
        read: Vec::new(),
    };
    assert!(!store.txn(txn).await.expect("an answer").succeeded, "every comparison has to hold");
    assert!(get(&*store, "many/a").await.is_some());
}

pub(super) async fn deleting_nothing_is_no_write(store: Arc<dyn Store>) {
    let before = put(&*store, "nothing/a", "1").await;
    let after = write(&*store, vec![Op::Delete(bytes("nothing/none"))]).await;
    assert_eq!(after, before);
}

pub(super) async fn a_key_twice_is_refused(store: Arc<dyn Store>) {
    let txn = Txn { then: vec![put_op("twice", "1", 0), put_op("twice", "2", 0)], ..Txn::default() };
    assert!(matches!(store.txn(txn).await, Err(Error::DuplicateKey(key)) if key == "twice"));
    assert_eq!(get(&*store, "twice").await, None);
}

pub(super) async fn racing_writers_lose_no_update(store: Arc<dyn Store>) {
    let mut revision = put(&*store, "race/counter", "0").await;
    let before = revision;
    let writers = (0..8).map(|_| {
        let store = store.clone();
        async move {
            for _ in 0..10 {
                loop {
                    let kv = get(&*store, "race/counter").await.expect("the counter is there");
                    let value: u32 = String::from_utf8_lossy(&kv.value).parse().expect("a number");
                    let next = (value + 1).to_string();
                    if put_if(&*store, "race/counter", &next, kv.mod_revision).await.succeeded {
                        break;
                    }
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    let kv = get(&*store, "race/counter").await.expect("the counter is there");
    assert_eq!(kv.value, bytes("80"));
    revision.0 += 80;
    assert_eq!((kv.mod_revision, kv.version), (revision, 81));
    assert_eq!(
        store.revision().await.expect("a revision").0 - before.0,
        80,
        "refused writes take no revision"
    );
}

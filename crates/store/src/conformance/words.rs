//! Short words for the checks.

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Duration, timeout};

use crate::{
    Compare, KeyRange, KeyValue, Op, RangeRequest, RangeResponse, Revision, Store, Txn, TxnResponse, Watch,
    WatchEvent,
};

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn put_op(key: &str, value: &str, lease: i64) -> Op {
    Op::Put { key: bytes(key), value: bytes(value), lease }
}

/// Puts a key; returns the revision.
pub(super) async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    write(store, vec![put_op(key, value, 0)]).await
}

/// Deletes a key; returns the revision.
pub(super) async fn delete(store: &dyn Store, key: &str) -> Revision {
    write(store, vec![Op::Delete(bytes(key))]).await
}

pub(super) async fn write(store: &dyn Store, then: Vec<Op>) -> Revision {
    let answer = store.txn(Txn { then, ..Txn::default() }).await.expect("an unconditional write succeeds");
    assert!(answer.succeeded);
    answer.revision
}

/// Puts a key if its last write was at `revision`.
pub(super) async fn put_if(store: &dyn Store, key: &str, value: &str, revision: Revision) -> TxnResponse {
    let txn = Txn {
        when: vec![Compare::ModRevision(bytes(key), revision)],
        then: vec![put_op(key, value, 0)],
        read: vec![bytes(key)],
    };
    store.txn(txn).await.expect("a conditional write is answered")
}

pub(super) fn under(prefix: &str) -> RangeRequest {
    RangeRequest { range: KeyRange::prefix(prefix), at: None, limit: 0, count_only: false }
}

pub(super) async fn range(store: &dyn Store, request: RangeRequest) -> RangeResponse {
    store.range(request).await.expect("a range can be read")
}

pub(super) async fn get(store: &dyn Store, key: &str) -> Option<KeyValue> {
    let request = RangeRequest { range: KeyRange::key(key), at: None, limit: 0, count_only: false };
    range(store, request).await.kvs.pop()
}

/// Keys and values as text.
pub(super) fn pairs(kvs: &[KeyValue]) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

/// [`pairs`] as they are written in a check.
pub(super) fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Opens a watch and takes its first progress mark.
pub(super) async fn watch(store: &dyn Store, prefix: &str, from: Option<Revision>) -> (Revision, Watch) {
    let mut watch = store.watch(KeyRange::prefix(prefix), from).await.expect("a watch can be opened");
    let first = timeout(Duration::from_secs(10), watch.next()).await.expect("a watch begins with a mark");
    let mark = first.expect("a watch does not end").expect("the mark is no error");
    assert!(mark.events.is_empty(), "a watch begins with a mark, not with events");
    (mark.revision, watch)
}

/// The events of the next revision that has some.
pub(super) async fn next(watch: &mut Watch) -> (Revision, Vec<WatchEvent>) {
    loop {
        let batch = timeout(Duration::from_secs(20), watch.next())
            .await
            .expect("a change is reported")
            .expect("a watch does not end")
            .expect("a change is no error");
        if !batch.events.is_empty() {
            return (batch.revision, batch.events.to_vec());
        }
    }
}

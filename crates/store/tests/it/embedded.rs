//! The embedded store: the suite, and what only it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use sampan_store::embedded::{Embedded, Options};
use sampan_store::{Error, KeyRange, Op, RangeRequest, Revision, Store, Txn, conformance};

pub(crate) async fn put(store: &Embedded, key: &str, value: &[u8]) -> Result<Revision, Error> {
    let value = value.to_vec().into();
    let then = vec![Op::Put { key: key.to_owned().into(), value, lease: 0 }];
    Ok(store.txn(Txn { then, ..Txn::default() }).await?.revision)
}

pub(crate) fn all() -> RangeRequest {
    let range = KeyRange { start: "".into(), end: "\u{7f}".into() };
    RangeRequest { range, at: None, limit: 0, count_only: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    conformance::run(|| async { store.clone() as Arc<dyn Store> }).await;
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let lease = store.grant_lease(3600).await.unwrap();
    let key = || "kept".into();
    let then = vec![Op::Put { key: key(), value: "1".into(), lease }];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    let last = put(&store, "other", b"2").await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.revision().await.unwrap(), last);
    let mut changes = store.watch(KeyRange::prefix("kept"), Some(Revision(2))).await.unwrap();
    assert!(changes.next().await.unwrap().unwrap().events.is_empty());
    assert_eq!(changes.next().await.unwrap().unwrap().events[0].kv.lease, lease);
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.range(all()).await.unwrap().count, 1);
}

#[tokio::test]
async fn lease_that_ran_out_while_closed_is_expired_on_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let lease = store.grant_lease(1).await.unwrap();
    let then = vec![Op::Put { key: "event".into(), value: "1".into(), lease }];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    drop(store);
    std::thread::sleep(Duration::from_millis(1100));
    let store = Embedded::open(directory.path()).unwrap();
    let patience = Instant::now();
    while store.range(all()).await.unwrap().count > 0 {
        assert!(patience.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn history_is_bounded_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { history: 100, ..Options::default() };
    let store = Embedded::open_with(directory.path(), options).unwrap();
    let mut lagging = store.watch(KeyRange::prefix("a"), None).await.unwrap();
    for number in 0..1000 {
        put(&store, &format!("a{}", number % 7), b"x").await.unwrap();
    }
    let now = store.revision().await.unwrap();
    let at = |back| RangeRequest { at: Some(Revision(now.0 - back)), ..all() };
    assert_eq!(store.range(at(99)).await.unwrap().count, 7);
    assert!(matches!(store.range(at(900)).await, Err(Error::Compacted { .. })));
    // A reader that slept through more than the history learns that it has to start anew.
    let end = loop {
        match lagging.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, Error::Compacted { .. }), "{end}");
    assert!(lagging.next().await.is_none());
}

#[tokio::test]
async fn watches_end_when_the_store_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let mut changes = store.watch(KeyRange::prefix("a"), None).await.unwrap();
    changes.next().await.unwrap().unwrap();
    drop(store);
    assert!(matches!(changes.next().await, Some(Err(Error::Closed))));
    Embedded::open(directory.path()).unwrap();
}

/// Not a limit, a record: what a durable put costs here, alone and in company.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_of_durable_puts() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let value = vec![b'v'; 3000];
    let mut times = Vec::new();
    for number in 0..200 {
        let start = Instant::now();
        put(&store, &format!("key/{number}"), &value).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    let start = Instant::now();
    let writers = (0..16).map(|writer| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            for number in 0..50 {
                put(&store, &format!("key/{writer}/{number}"), &value).await.unwrap();
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    println!(
        "single put: p50 {:?}, p99 {:?}; 16 writers: {:.0} puts/s",
        times[100],
        times[197],
        800.0 / start.elapsed().as_secs_f64()
    );
}

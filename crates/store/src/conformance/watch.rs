//! Watches: complete, in order, without repetition.

use std::sync::Arc;

use futures::StreamExt;

use super::words::{bytes, delete, next, put, put_op, watch, write};
use crate::{Error, KeyRange, Op, Revision, Store};

pub(super) async fn reports_changes_from_now_on(store: Arc<dyn Store>) {
    put(&*store, "watch/a", "before").await;
    let (mark, mut changes) = watch(&*store, "watch/", None).await;
    assert_eq!(mark, store.revision().await.expect("a revision"));
    put(&*store, "other/a", "1").await;
    let put_at = put(&*store, "watch/a", "2").await;
    let deleted_at = delete(&*store, "watch/a").await;
    let (revision, events) = next(&mut changes).await;
    assert_eq!((revision, events.len()), (put_at, 1));
    assert_eq!((&events[0].kv.value, events[0].deleted, events[0].kv.version), (&bytes("2"), false, 2));
    let (revision, events) = next(&mut changes).await;
    assert_eq!((revision, events.len()), (deleted_at, 1));
    assert_eq!((&events[0].kv.key, events[0].deleted), (&bytes("watch/a"), true));
    assert_eq!(events[0].kv.mod_revision, deleted_at);
}

pub(super) async fn reports_a_revision_at_once(store: Arc<dyn Store>) {
    let (mark, mut live) = watch(&*store, "once/", None).await;
    let ops = (0..5).map(|number| put_op(&format!("once/{number}"), "1", 0));
    let ops = ops.chain([put_op("elsewhere", "1", 0)]).collect();
    let revision = write(&*store, ops).await;
    let (_, mut replayed) = watch(&*store, "once/", Some(Revision(mark.0 + 1))).await;
    for changes in [&mut live, &mut replayed] {
        let (seen, events) = next(changes).await;
        assert_eq!((seen, events.len()), (revision, 5));
    }
}

pub(super) async fn reports_what_was_there_before(store: Arc<dyn Store>) {
    let first = put(&*store, "before/a", "1").await;
    put(&*store, "before/a", "2").await;
    delete(&*store, "before/a").await;
    put(&*store, "before/a", "3").await;
    let (_, mut changes) = watch(&*store, "before/", Some(first)).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (_, events) = next(&mut changes).await;
        seen.push((events[0].deleted, events[0].previous.clone().map(|kv| kv.value)));
    }
    let two = Some(bytes("2"));
    assert_eq!(seen, [(false, None), (false, Some(bytes("1"))), (true, two), (false, None)]);
}

pub(super) async fn resumes_without_gap_while_others_write(store: Arc<dyn Store>) {
    const WRITES: i64 = 300;
    let before = store.revision().await.expect("a revision");
    let writer = async {
        for number in 0..WRITES {
            put(&*store, "gap/a", &number.to_string()).await;
        }
    };
    let readers = (0..5).map(|reader| {
        let store = store.clone();
        async move {
            let mut from = Revision(before.0 + 1);
            let mut seen: Vec<i64> = Vec::new();
            while seen.len() < usize::try_from(WRITES).unwrap_or(0) {
                let (_, mut changes) = watch(&*store, "gap/", Some(from)).await;
                // Breaks off again and again, to resume at different moments.
                for _ in 0..(20 + 40 * reader) {
                    if seen.len() as i64 == WRITES {
                        break;
                    }
                    let (revision, events) = next(&mut changes).await;
                    assert_eq!(events.len(), 1);
                    seen.push(revision.0);
                    from = Revision(revision.0 + 1);
                }
            }
            let expected: Vec<i64> = (1..=WRITES).map(|number| before.0 + number).collect();
            assert_eq!(seen, expected);
        }
    });
    futures::join!(writer, futures::future::join_all(readers));
}

pub(super) async fn from_the_future_waits(store: Arc<dyn Store>) {
    let now = store.revision().await.expect("a revision");
    let (_, mut changes) = watch(&*store, "later/", Some(Revision(now.0 + 3))).await;
    for value in ["1", "2", "3"] {
        put(&*store, "later/a", value).await;
    }
    let (revision, events) = next(&mut changes).await;
    assert_eq!((revision.0, &events[0].kv.value), (now.0 + 3, &bytes("3")));
}

pub(super) async fn sleeping_reader_gets_everything(store: Arc<dyn Store>) {
    const BATCHES: usize = 40;
    let (_, mut changes) = watch(&*store, "sleep/", None).await;
    let value = "v".repeat(500);
    for batch in 0..BATCHES {
        let writes = (0..25).map(|number| {
            let ops: Vec<Op> = vec![put_op(&format!("sleep/{batch}/{number}"), &value, 0)];
            write(&*store, ops)
        });
        futures::future::join_all(writes).await;
    }
    let mut last = Revision(0);
    for _ in 0..BATCHES * 25 {
        let (revision, events) = next(&mut changes).await;
        assert!(revision > last && events.len() == 1);
        assert!(last.0 == 0 || revision.0 == last.0 + 1, "no revision is left out");
        last = revision;
    }
}

pub(super) async fn compacted_past_is_refused(store: Arc<dyn Store>) {
    let old = put(&*store, "forgotten/a", "1").await;
    put(&*store, "forgotten/a", "2").await;
    let at = put(&*store, "forgotten/a", "3").await;
    store.compact(at).await.expect("the past can be compacted");
    let refused = match store.watch(KeyRange::prefix("forgotten/"), Some(old)).await {
        Err(error) => error,
        Ok(mut changes) => loop {
            match changes.next().await.expect("a refused watch says why") {
                Ok(batch) => assert!(batch.events.is_empty(), "the past is gone"),
                Err(error) => break error,
            }
        },
    };
    assert!(matches!(refused, Error::Compacted { requested, .. } if requested == old), "{refused}");
    let (_, mut changes) = watch(&*store, "forgotten/", Some(at)).await;
    assert_eq!(next(&mut changes).await.0, at);
}

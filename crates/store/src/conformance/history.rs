//! Ranges now and in the past, and compaction.

use std::sync::Arc;

use super::words::{delete, expected, get, pairs, put, range, under};
use crate::{Error, KeyRange, RangeRequest, Revision, Store};

pub(super) async fn ranges_are_ordered_limited_and_counted(store: Arc<dyn Store>) {
    for key in ["list/c", "list/a", "list/b", "list/d", "lisu"] {
        put(&*store, key, key).await;
    }
    let all = range(&*store, under("list/")).await;
    let keys: Vec<_> = pairs(&all.kvs).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["list/a", "list/b", "list/c", "list/d"]);
    assert_eq!((all.count, all.more), (4, false));
    let two = range(&*store, RangeRequest { limit: 2, ..under("list/") }).await;
    assert_eq!((two.kvs.len(), two.count, two.more), (2, 4, true));
    let four = range(&*store, RangeRequest { limit: 4, ..under("list/") }).await;
    assert_eq!((four.kvs.len(), four.more), (4, false));
    let count = range(&*store, RangeRequest { count_only: true, ..under("list/") }).await;
    assert_eq!((count.kvs.len(), count.count), (0, 4));
    let middle = KeyRange { start: "list/b".into(), end: "list/d".into() };
    let middle = range(&*store, RangeRequest { range: middle, ..under("") }).await;
    assert_eq!(pairs(&middle.kvs), expected(&[("list/b", "list/b"), ("list/c", "list/c")]));
    let none = KeyRange { start: "list/d".into(), end: "list/b".into() };
    let none = range(&*store, RangeRequest { range: none, ..under("") }).await;
    assert_eq!((none.kvs.len(), none.count), (0, 0));
    assert_eq!(none.revision, store.revision().await.expect("a revision"));
}

pub(super) async fn the_past_can_be_read(store: Arc<dyn Store>) {
    put(&*store, "past/a", "1").await;
    let first = put(&*store, "past/b", "1").await;
    put(&*store, "past/a", "2").await;
    let second = delete(&*store, "past/b").await;
    put(&*store, "past/b", "3").await;
    let third = put(&*store, "past/c", "3").await;
    delete(&*store, "past/a").await;
    let at = |at| RangeRequest { at: Some(at), ..under("past/") };
    assert_eq!(pairs(&range(&*store, at(first)).await.kvs), expected(&[("past/a", "1"), ("past/b", "1")]));
    assert_eq!(pairs(&range(&*store, at(second)).await.kvs), expected(&[("past/a", "2")]));
    let old = range(&*store, RangeRequest { limit: 2, ..at(third) }).await;
    assert_eq!(pairs(&old.kvs), expected(&[("past/a", "2"), ("past/b", "3")]));
    assert_eq!((old.more, old.count), (true, 3));
    assert_eq!(
        pairs(&range(&*store, under("past/")).await.kvs),
        expected(&[("past/b", "3"), ("past/c", "3")])
    );
}

pub(super) async fn pages_of_one_revision_are_consistent(store: Arc<dyn Store>) {
    for number in 0..20 {
        put(&*store, &format!("page/{number:02}"), "old").await;
    }
    let mut request = RangeRequest { limit: 6, ..under("page/") };
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = range(&*store, request.clone()).await;
        request.at = request.at.or(Some(page.revision));
        pages += 1;
        let last = page.kvs.last().expect("a page has keys").key.clone();
        seen.extend(pairs(&page.kvs));
        if !page.more {
            break;
        }
        request.range.start = KeyRange::key(last).end;
        delete(&*store, &format!("page/{:02}", 20 - pages)).await;
        put(&*store, &format!("page/{:02}", 10 + pages), "new").await;
        put(&*store, &format!("page/{:02}x", 10 + pages), "new").await;
    }
    assert_eq!((seen.len(), pages), (20, 4));
    assert!(seen.iter().all(|(_, value)| value == "old"));
}

pub(super) async fn the_future_cannot_be_read(store: Arc<dyn Store>) {
    let future = Revision(store.revision().await.expect("a revision").0 + 1000);
    let refused = store.range(RangeRequest { at: Some(future), ..under("future/") }).await;
    assert!(matches!(refused, Err(Error::Future(revision)) if revision == future));
    assert!(matches!(store.compact(future).await, Err(Error::Future(_))));
}

pub(super) async fn compaction_forgets_the_past_only(store: Arc<dyn Store>) {
    let oldest = put(&*store, "compact/a", "1").await;
    put(&*store, "compact/gone", "1").await;
    put(&*store, "compact/kept", "1").await;
    delete(&*store, "compact/gone").await;
    let at = put(&*store, "compact/a", "2").await;
    put(&*store, "compact/a", "3").await;
    store.compact(at).await.expect("the past can be compacted");
    let refused = store.range(RangeRequest { at: Some(oldest), ..under("compact/") }).await;
    assert!(matches!(refused, Err(Error::Compacted { requested, .. }) if requested == oldest));
    assert!(matches!(store.compact(oldest).await, Err(Error::Compacted { .. })));
    let kept = range(&*store, RangeRequest { at: Some(at), ..under("compact/") }).await;
    assert_eq!(pairs(&kept.kvs), expected(&[("compact/a", "2"), ("compact/kept", "1")]));
    assert_eq!(get(&*store, "compact/a").await.map(|kv| kv.version), Some(3));
    let newest = store.revision().await.expect("a revision");
    store.compact(newest).await.expect("everything but the present can be compacted");
    let all = range(&*store, under("compact/")).await;
    assert_eq!(pairs(&all.kvs), expected(&[("compact/a", "3"), ("compact/kept", "1")]));
}

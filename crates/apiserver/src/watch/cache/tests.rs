#![allow(clippy::unwrap_used)]
use bytes::Bytes;
use sampan_api::scheme;

use super::*;

fn put(name: &str, revision: i64) -> (String, i64, Option<Bytes>) {
    let resource = scheme::find("", "v1", "configmaps").unwrap();
    let object = serde_json::json!({"metadata": {"name": name, "namespace": "a"}});
    (format!("a/{name}"), revision, Some(codec::encode(resource, &object)))
}

fn cache() -> Arc<Cache> {
    let cache = Arc::new(Cache::new(scheme::find("", "v1", "configmaps").unwrap()));
    cache.reset([], 10);
    cache
}

#[test]
fn followers_see_what_happens_after_their_revision() {
    let cache = cache();
    cache.apply([put("x", 11), put("y", 12), put("x", 13), ("a/y".into(), 14, None)]);
    let mut all = cache.follow(10).unwrap();
    let kinds: Vec<_> =
        all.take(10).unwrap().iter().map(|event| (event.kind, event.object.revision)).collect();
    use EventKind::{Added, Deleted, Modified};
    assert_eq!(kinds, [(Added, 11), (Added, 12), (Modified, 13), (Deleted, 14)]);
    assert_eq!(cache.follow(12).unwrap().take(10).unwrap().len(), 2);
    assert_eq!(cache.follow(9).err(), Some(TooOld { oldest: 10 }));
    let snapshot = cache.snapshot("a", 0);
    assert_eq!((snapshot.objects.len(), snapshot.revision), (1, 14));
    assert_eq!(cache.snapshot("b", 20).revision, 20);
}

#[tokio::test]
async fn a_follower_that_falls_behind_is_told() {
    let cache = cache();
    let mut slow = cache.follow(10).unwrap();
    for revision in 0..(RING_EVENTS as i64 + 1) {
        cache.apply([put("x", 11 + revision)]);
    }
    assert!(slow.changed().await);
    assert_eq!(slow.take(1).err(), Some(TooOld { oldest: 11 }));
    cache.reset([], 9000);
    let mut fresh = cache.follow(9000).unwrap();
    assert!(fresh.take(5).unwrap().is_empty());
    cache.reset([], 9001);
    assert!(fresh.take(5).is_err());
}

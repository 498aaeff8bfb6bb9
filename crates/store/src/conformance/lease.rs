//! Leases and the keys bound to them.

use std::sync::Arc;

use super::words::{get, next, put, put_op, watch, write};
use crate::{Error, Store, Txn};

pub(super) async fn revoking_deletes_the_keys(store: Arc<dyn Store>) {
    let lease = store.grant_lease(3600).await.expect("a lease");
    let other = store.grant_lease(3600).await.expect("another lease");
    assert_ne!(lease, other);
    write(&*store, vec![put_op("lease/a", "1", lease), put_op("lease/b", "1", lease)]).await;
    write(&*store, vec![put_op("lease/c", "1", other), put_op("lease/d", "1", 0)]).await;
    assert_eq!(get(&*store, "lease/a").await.map(|kv| kv.lease), Some(lease));
    let (_, mut changes) = watch(&*store, "lease/", None).await;
    store.revoke_lease(lease).await.expect("a lease can be revoked");
    let (_, events) = next(&mut changes).await;
    assert!(events.len() == 2 && events.iter().all(|event| event.deleted), "both go at once");
    for (key, there) in [("lease/a", false), ("lease/b", false), ("lease/c", true), ("lease/d", true)] {
        assert_eq!(get(&*store, key).await.is_some(), there, "{key}");
    }
    store.revoke_lease(other).await.expect("a lease can be revoked");
}

pub(super) async fn expiry_deletes_the_keys(store: Arc<dyn Store>) {
    let lease = store.grant_lease(1).await.expect("a lease");
    write(&*store, vec![put_op("expiry/a", "1", lease)]).await;
    let (_, mut changes) = watch(&*store, "expiry/", None).await;
    let (_, events) = next(&mut changes).await;
    assert!(events[0].deleted);
    assert!(get(&*store, "expiry/a").await.is_none());
    assert!(matches!(store.revoke_lease(lease).await, Err(Error::LeaseNotFound(_))));
}

pub(super) async fn overwriting_detaches_the_key(store: Arc<dyn Store>) {
    let lease = store.grant_lease(3600).await.expect("a lease");
    write(&*store, vec![put_op("detach/a", "1", lease)]).await;
    put(&*store, "detach/a", "2").await;
    store.revoke_lease(lease).await.expect("a lease can be revoked");
    assert_eq!(get(&*store, "detach/a").await.map(|kv| kv.lease), Some(0));
}

pub(super) async fn unknown_lease_is_refused(store: Arc<dyn Store>) {
    let txn = Txn { then: vec![put_op("unknown/a", "1", 987_654_321)], ..Txn::default() };
    assert!(matches!(store.txn(txn).await, Err(Error::LeaseNotFound(987_654_321))));
    assert!(get(&*store, "unknown/a").await.is_none());
    assert!(matches!(store.revoke_lease(987_654_321).await, Err(Error::LeaseNotFound(987_654_321))));
}

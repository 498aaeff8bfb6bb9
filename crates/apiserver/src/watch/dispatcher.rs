//! Feeds all caches from one watch of the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use sampan_store::{KeyRange, RangeRequest, Revision, Store, Watch, WatchBatch};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Cache;
use crate::Error;
use crate::registry::key;

/// How long to wait before the store is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Fills the caches and starts the task that keeps them up to date.
pub(super) async fn start(
    store: Arc<dyn Store>,
    caches: HashMap<String, Arc<Cache>>,
    progress: watch::Sender<i64>,
) -> Result<AbortHandle, Error> {
    let mut watch = fill(&*store, &caches, &progress)
        .await
        .map_err(|source| Error::Store { operation: "read all objects", source })?;
    let task = tokio::spawn(async move {
        loop {
            while let Some(batch) = watch.next().await {
                match batch {
                    Ok(batch) => {
                        apply(&caches, &batch);
                        progress.send_if_modified(|now| {
                            let newer = batch.revision.0 > *now;
                            if newer {
                                *now = batch.revision.0;
                            }
                            newer
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the watch of the store broke; all objects are read again");
                        break;
                    }
                }
            }
            watch = loop {
                match fill(&*store, &caches, &progress).await {
                    Ok(watch) => break watch,
                    Err(sampan_store::Error::Closed) => return,
                    Err(error) => {
                        tracing::error!(%error, "cannot read all objects from the store");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            };
        }
    });
    Ok(task.abort_handle())
}

/// Reads everything and opens a watch that goes on from there.
async fn fill(
    store: &dyn Store,
    caches: &HashMap<String, Arc<Cache>>,
    progress: &watch::Sender<i64>,
) -> Result<Watch, sampan_store::Error> {
    let range = KeyRange::prefix(key::ROOT);
    let all =
        store.range(RangeRequest { range: range.clone(), at: None, limit: 0, count_only: false }).await?;
    let watch = store.watch(range, Some(Revision(all.revision.0 + 1))).await?;
    let mut objects: HashMap<&str, Vec<(String, i64, Bytes)>> = HashMap::new();
    for kv in all.kvs {
        if let Some((prefix, suffix)) = split(caches, &kv.key) {
            objects.entry(prefix).or_default().push((suffix.to_owned(), kv.mod_revision.0, kv.value));
        }
    }
    for (prefix, cache) in caches {
        cache.reset(objects.remove(prefix.as_str()).unwrap_or_default(), all.revision.0);
    }
    progress.send_replace(all.revision.0);
    Ok(watch)
}

fn apply(caches: &HashMap<String, Arc<Cache>>, batch: &WatchBatch) {
    let mut rest = &batch.events[..];
    while let Some(first) = rest.first() {
        let Some((prefix, _)) = split(caches, &first.kv.key) else {
            rest = &rest[1..];
            continue;
        };
        // Neighbours of the same resource go in together: a snapshot sees all of a revision or nothing of it.
        let count = rest.iter().take_while(|event| event.kv.key.starts_with(prefix.as_bytes())).count();
        let (these, others) = rest.split_at(count);
        caches[prefix].apply(these.iter().map(|event| {
            let suffix = String::from_utf8_lossy(&event.kv.key[prefix.len()..]).into_owned();
            (suffix, event.kv.mod_revision.0, (!event.deleted).then(|| event.kv.value.clone()))
        }));
        rest = others;
    }
}

/// The resource's prefix that a key begins with, and the rest of the key.
fn split<'c, 'k>(caches: &'c HashMap<String, Arc<Cache>>, key: &'k [u8]) -> Option<(&'c str, &'k str)> {
    let key = std::str::from_utf8(key).ok()?;
    let mut ends = key.match_indices('/').map(|(at, _)| at + 1).skip(2);
    for end in ends.by_ref().take(2) {
        if let Some((prefix, _)) = caches.get_key_value(&key[..end]) {
            return Some((prefix, &key[end..]));
        }
    }
    None
}

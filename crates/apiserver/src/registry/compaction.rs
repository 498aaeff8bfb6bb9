//! Forgets the store's history, as upstream's API server does every 5 minutes: what was the newest revision at the
//! last round is the oldest one that is kept after this one.

use std::sync::Arc;
use std::time::Duration;

use sampan_store::Store;
use tokio::task::AbortHandle;

const INTERVAL: Duration = Duration::from_secs(300);

/// Starts the task.
pub(super) fn start(store: Arc<dyn Store>) -> AbortHandle {
    tokio::spawn(async move {
        let mut last = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some(at) = last
                && let Err(error) = store.compact(at).await
                && !matches!(error, sampan_store::Error::Compacted { .. })
            {
                tracing::warn!(%error, "cannot compact the store's history");
            }
            last = store.revision().await.ok();
        }
    })
    .abort_handle()
}

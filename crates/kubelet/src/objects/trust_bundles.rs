//! The cluster's ClusterTrustBundles (KEP-3257), followed by one watch for all pods that show some of them: it begins with
//! the first and ends with the last, so that an API server without the kind is asked only where it is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::followed::{Known, Retries, Shared};

/// All bundles by name.
pub(crate) type Bundles = BTreeMap<String, Arc<ClusterTrustBundle>>;

/// Where bundles are followed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TrustBundles {
    client: kube::Client,
    watch: Arc<Mutex<Weak<Watch>>>,
}

/// The bundles as a pod follows them; the pod's interest ends with this.
pub(crate) struct FollowedBundles(Arc<Watch>);

struct Watch {
    shared: Arc<Shared<Bundles>>,
    /// Ends with the last [`FollowedBundles`].
    _task: AbortOnDropHandle<()>,
}

impl TrustBundles {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, watch: Arc::default() }
    }

    /// Follows the bundles; `listener` is notified of every change.
    pub(crate) fn follow(&self, listener: &Arc<Notify>) -> FollowedBundles {
        let mut running = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = running.upgrade().unwrap_or_else(|| {
            let shared = Arc::new(Shared::new());
            let task = tokio::spawn(follow(Api::all(self.client.clone()), Arc::clone(&shared)));
            Arc::new(Watch { shared, _task: AbortOnDropHandle::new(task) })
        });
        watch.shared.listen(listener);
        *running = Arc::downgrade(&watch);
        FollowedBundles(watch)
    }
}

impl FollowedBundles {
    /// The bundles as they are now.
    ///
    /// # Errors
    /// The API has never told, and why: it may not have the kind.
    pub(crate) async fn read(&self) -> Result<Arc<Bundles>, String> {
        let known = self.0.shared.read().await.map_err(|error| format!("ClusterTrustBundles: {error}"))?;
        Ok(known.unwrap_or_default())
    }
}

async fn follow(api: Api<ClusterTrustBundle>, shared: Arc<Shared<Bundles>>) {
    let (mut bundles, mut fresh) = (Bundles::new(), Bundles::new());
    let mut events = watcher(api, watcher::Config::default()).backoff(Retries::default()).boxed();
    let named =
        |bundle: ClusterTrustBundle| (bundle.metadata.name.clone().unwrap_or_default(), Arc::new(bundle));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                fresh.clear();
                continue;
            }
            Ok(Event::InitApply(bundle)) => {
                fresh.extend([named(bundle)]);
                continue;
            }
            Ok(Event::InitDone) => bundles = std::mem::take(&mut fresh),
            Ok(Event::Apply(bundle)) => bundles.extend([named(bundle)]),
            Ok(Event::Delete(bundle)) => {
                bundles.remove(&named(bundle).0);
            }
            Err(error) => {
                tracing::debug!(%error, "watch of ClusterTrustBundles");
                shared.fail(error.to_string());
                continue;
            }
        }
        shared.set(Known::Present(Arc::new(bundles.clone())));
    }
}

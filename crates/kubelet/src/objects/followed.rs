//! An object that pods of this node use, followed by a watch of its own (a node may watch nothing wider): the pods
//! that use it share the watch, and it ends with the last of them. An object that is `immutable` is read once and not
//! watched (ENV-47).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::watch_object;
use kube::{Api, Resource};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long a reader waits for the API's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Kinds that are followed.
pub(crate) trait Follow:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + serde::de::DeserializeOwned
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Whether the API will refuse every change of its content.
    fn is_immutable(&self) -> bool;
}

impl Follow for ConfigMap {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Follow for Secret {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// What is known of an object. No `Debug`: it may be a Secret.
pub(super) enum Known<K> {
    /// Nothing. Moves on with the API's first answer.
    Nothing,
    /// Nothing, since the API does not tell: why. Moves on when it does.
    Failure(String),
    /// That it does not exist. Moves on when it is created.
    Absent,
    /// What it is. Moves on when it changes or is deleted, unless it is immutable.
    Present(Arc<K>),
}

/// The followed objects of one kind. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Following<K: Follow> {
    client: kube::Client,
    watches: Arc<Mutex<Watches<K>>>,
}

/// By namespace and name.
type Watches<K> = HashMap<(String, String), Weak<Watch<K>>>;

/// One object as a pod follows it; the pod's interest ends with this.
pub(crate) struct Followed<K: Follow>(Arc<Watch<K>>);

struct Watch<K: Follow> {
    shared: Arc<Shared<K>>,
    /// Ends with the last [`Followed`].
    _task: AbortOnDropHandle<()>,
}

/// What one watch tells all its readers.
pub(super) struct Shared<K> {
    known: watch::Sender<Known<K>>,
    /// Who is told that something changed.
    listeners: Mutex<Vec<Weak<Notify>>>,
}

impl<K: Follow> Following<K> {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, watches: Arc::default() }
    }

    /// Follows an object; `listener` is notified of every change.
    pub(crate) fn follow(&self, namespace: &str, name: &str, listener: &Arc<Notify>) -> Followed<K> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|_, watch| watch.strong_count() > 0);
        let key = (namespace.to_owned(), name.to_owned());
        // One that is no longer watched may have been deleted and made anew: a new pod wants the new one.
        let shared = watches.get(&key).and_then(Weak::upgrade).filter(|watch| !watch.is_over());
        let watch = shared.unwrap_or_else(|| Arc::new(self.watch(namespace, name)));
        watch.shared.listen(listener);
        watches.insert(key, Arc::downgrade(&watch));
        Followed(watch)
    }

    fn watch(&self, namespace: &str, name: &str) -> Watch<K> {
        let shared = Arc::new(Shared::new());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let task = tokio::spawn(follow(api, name.to_owned(), Arc::clone(&shared)));
        Watch { shared, _task: AbortOnDropHandle::new(task) }
    }
}

async fn follow<K: Follow>(api: Api<K>, name: String, shared: Arc<Shared<K>>) {
    let mut states = watch_object(api, &name).backoff(Retries::default()).boxed();
    while let Some(state) = states.next().await {
        match state {
            Ok(Some(object)) => {
                let over = object.is_immutable();
                shared.set(Known::Present(Arc::new(object)));
                if over {
                    return;
                }
            }
            Ok(None) => shared.set(Known::Absent),
            Err(error) => {
                tracing::debug!(name, %error, "watch of an object in a volume");
                shared.fail(error.to_string());
            }
        }
    }
}

impl<K: Follow> Watch<K> {
    /// Whether what is known will not change any more.
    fn is_over(&self) -> bool {
        matches!(&*self.shared.known.borrow(), Known::Present(object) if object.is_immutable())
    }
}

impl<K> Shared<K> {
    pub(super) fn new() -> Self {
        Self { known: watch::Sender::new(Known::Nothing), listeners: Mutex::default() }
    }

    /// Notifies `listener` of every change from now on.
    pub(super) fn listen(&self, listener: &Arc<Notify>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    pub(super) fn set(&self, known: Known<K>) {
        self.known.send_replace(known);
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.notify_one();
        }
    }
}

impl<K> Shared<K> {
    /// The watch failed: what was known is still the best there is.
    pub(super) fn fail(&self, why: String) {
        let knows_nothing = matches!(*self.known.borrow(), Known::Nothing | Known::Failure(_));
        if knows_nothing {
            self.set(Known::Failure(why));
        }
    }

    /// What is known once the API has answered.
    pub(super) async fn read(&self) -> Result<Option<Arc<K>>, String> {
        let mut known = self.known.subscribe();
        let answered = known.wait_for(|known| !matches!(known, Known::Nothing));
        match tokio::time::timeout(FIRST_ANSWER, answered).await {
            Ok(Ok(known)) => match &*known {
                Known::Present(object) => Ok(Some(Arc::clone(object))),
                Known::Absent => Ok(None),
                Known::Failure(error) => Err(error.clone()),
                Known::Nothing => Err("the API server has not answered yet".to_owned()),
            },
            Ok(Err(_)) | Err(_) => Err("the API server has not answered yet".to_owned()),
        }
    }
}

impl<K: Follow> Followed<K> {
    /// The object as it is now, `None` when there is none.
    ///
    /// # Errors
    /// The API has never told, and why.
    pub(crate) async fn read(&self) -> Result<Option<Arc<K>>, String> {
        self.0.shared.read().await
    }
}

/// Short waits at first: a node's authorizer learns of a pod a moment after its kubelet.
#[derive(Default)]
pub(super) struct Retries(u32);

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(50) * 2_u32.pow(self.0.min(7));
        self.0 = self.0.saturating_add(1);
        Some(wait)
    }
}

impl Backoff for Retries {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

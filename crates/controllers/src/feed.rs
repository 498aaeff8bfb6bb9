//! One watch per resource, shared by all controllers that need it.
//!
//! A feed says what is there and what is gone, also across a listing anew: it remembers the keys. It forwards objects
//! and keeps none; a slow controller slows the watch, never fills memory.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use kube::Client;
use kube::api::ApiResource;
use kube::core::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use sampan_api::Resource;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::kinds;

/// How many changes wait for a controller.
const QUEUE: usize = 64;

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Empty for objects of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    /// The key in this metadata.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }
}

/// What a feed says.
#[derive(Debug)]
pub(crate) enum Change<K> {
    /// The object is there, like this.
    Set(Arc<K>),
    /// It is gone; with the uid that it had.
    Gone(Key, String),
    /// Everything that is there has been said.
    Listed,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Set(object) => Self::Set(object.clone()),
            Self::Gone(key, uid) => Self::Gone(key.clone(), uid.clone()),
            Self::Listed => Self::Listed,
        }
    }
}

/// The changes of a resource for one controller.
pub(crate) type Changes = ReceiverStream<Change<DynamicObject>>;

/// All watches; built while the controllers are, then run.
pub(crate) struct Feeds {
    client: Client,
    feeds: HashMap<(&'static str, &'static str, &'static str), Feed>,
}

struct Feed {
    resource: &'static Resource,
    namespace: &'static str,
    fields: &'static str,
    queues: Vec<mpsc::Sender<Change<DynamicObject>>>,
}

impl Feeds {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, feeds: HashMap::new() }
    }

    /// The changes of a resource in all namespaces.
    pub(crate) fn subscribe(&mut self, group: &str, plural: &str) -> Changes {
        self.subscribe_to(kinds::find(group, plural), "", "")
    }

    /// The changes of the objects in a namespace (empty for all) that a field selector selects.
    pub(crate) fn subscribe_to(
        &mut self,
        resource: &'static Resource,
        namespace: &'static str,
        fields: &'static str,
    ) -> Changes {
        let (queue, changes) = mpsc::channel(QUEUE);
        let feed = self.feeds.entry((resource.plural, namespace, fields));
        let queues = Vec::new();
        feed.or_insert(Feed { resource, namespace, fields, queues }).queues.push(queue);
        ReceiverStream::new(changes)
    }

    /// Runs all watches.
    pub(crate) fn run(self) -> BoxFuture<'static, ()> {
        let feeds = self.feeds.into_values().map(|feed| feed.run(self.client.clone()));
        futures::future::join_all(feeds).map(drop).boxed()
    }
}

impl Feed {
    async fn run(self, client: Client) {
        let api = kinds::api(&client, self.resource, self.namespace);
        let fields = (!self.fields.is_empty()).then(|| self.fields.to_owned());
        let config = watcher::Config { field_selector: fields, ..watcher::Config::default() };
        let mut changes = pin!(changes::<DynamicObject>(api, config, self.resource.plural));
        while let Some(change) = changes.next().await {
            for queue in &self.queues {
                let _controller_ended = queue.send(change.clone()).await;
            }
        }
    }
}

/// The changes of the metadata of a resource in all namespaces.
pub(crate) fn metadata(
    client: &Client,
    resource: &'static Resource,
) -> impl futures::Stream<Item = Change<PartialObjectMeta>> + use<> {
    changes(kinds::api(client, resource, ""), watcher::Config::default(), resource.plural)
}

/// A watch that restarts itself, as changes.
fn changes<K>(
    api: kube::Api<K>,
    config: watcher::Config,
    plural: &'static str,
) -> impl futures::Stream<Item = Change<K>> + use<K>
where
    K: kube::Resource<DynamicType = ApiResource>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let mut known: HashMap<Key, String> = HashMap::new();
    let mut listed: HashSet<Key> = HashSet::new();
    let events = watcher(api, config).default_backoff();
    let changes = events.map(move |event| match event {
        Ok(Event::Init) => {
            listed.clear();
            Vec::new()
        }
        Ok(Event::InitApply(object)) => {
            listed.insert(Key::of(object.meta()));
            set(&mut known, object)
        }
        Ok(Event::InitDone) => {
            let gone: Vec<_> = known.keys().filter(|key| !listed.contains(*key)).cloned().collect();
            listed = HashSet::new();
            let gone =
                gone.into_iter().filter_map(|key| known.remove(&key).map(|uid| Change::Gone(key, uid)));
            gone.chain([Change::Listed]).collect()
        }
        Ok(Event::Apply(object)) => set(&mut known, object),
        Ok(Event::Delete(object)) => {
            let key = Key::of(object.meta());
            known.remove(&key);
            vec![Change::Gone(key, object.meta().uid.clone().unwrap_or_default())]
        }
        Err(error) => {
            tracing::warn!(resource = plural, %error, "cannot be watched; trying again");
            Vec::new()
        }
    });
    changes.flat_map(stream::iter)
}

/// An object that is there; the one of the same name before it is gone if that was another.
fn set<K: kube::Resource>(known: &mut HashMap<Key, String>, object: K) -> Vec<Change<K>> {
    let key = Key::of(object.meta());
    let uid = object.meta().uid.clone().unwrap_or_default();
    let before = known.insert(key.clone(), uid.clone()).filter(|before| *before != uid);
    let gone = before.map(|before| Change::Gone(key, before));
    gone.into_iter().chain([Change::Set(Arc::new(object))]).collect()
}

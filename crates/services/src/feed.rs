//! A watch that restarts itself, as changes: also across a new list it says what is gone.

use std::{collections::HashSet, fmt::Debug};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

/// What a watch says; objects by `namespace/name`.
pub(crate) enum Change<K> {
    Set(Box<K>),
    Gone(String),
    /// Everything that is there has been said.
    Listed,
}

/// The changes of a resource in all namespaces.
pub(crate) fn changes<K>(client: &Client, plural: &'static str) -> impl Stream<Item = Change<K>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut known: HashSet<String> = HashSet::new();
    let mut listed: HashSet<String> = HashSet::new();
    let events = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    let changes = events.map(move |event| match event {
        Ok(Event::Init) => {
            listed.clear();
            Vec::new()
        }
        Ok(Event::InitApply(object)) => {
            listed.insert(key(&object));
            known.insert(key(&object));
            vec![Change::Set(Box::new(object))]
        }
        Ok(Event::InitDone) => {
            let gone: Vec<_> = known.difference(&listed).cloned().collect();
            known = std::mem::take(&mut listed);
            gone.into_iter().map(Change::Gone).chain([Change::Listed]).collect()
        }
        Ok(Event::Apply(object)) => {
            known.insert(key(&object));
            vec![Change::Set(Box::new(object))]
        }
        Ok(Event::Delete(object)) => {
            let key = key(&object);
            known.remove(&key);
            vec![Change::Gone(key)]
        }
        Err(error) => {
            tracing::warn!(resource = plural, %error, "cannot be watched; trying again");
            Vec::new()
        }
    });
    changes.flat_map(stream::iter)
}

/// An object's `namespace/name`.
pub(crate) fn key(object: &impl Resource) -> String {
    let metadata = object.meta();
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

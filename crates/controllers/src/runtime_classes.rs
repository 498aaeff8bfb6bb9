//! A RuntimeClass for every handler that some node offers, under the handler's name: whoever installs crun can name
//! it in a pod at once. Classes that people make or change are never touched; one of ours that they delete comes back
//! when the handler does, or at the next start. One of ours goes when no node has offered its handler for a while: a
//! node that is restarted or replaced, or a handler that does not answer for a moment, takes nothing away.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use kube::Client;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use sampan_api::meta::{list, str_of};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep_until};

use crate::feed::{Change, Feeds};
use crate::kinds::{self, code, or_gone};

/// Whose classes we may delete.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "sampan");
/// How long after a failure it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// What the controller knows of the classes.
#[derive(Default)]
struct Classes {
    /// The handlers that have one.
    done: BTreeSet<String>,
    /// Since when no node offers the handler of a class of ours.
    idle: BTreeMap<String, Instant>,
}

/// Runs the controller; `patience` is how long a class stays without a node that offers its handler.
pub(crate) fn run(client: Client, patience: Duration, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let mut changes = feeds.subscribe("", "nodes");
    async move {
        let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut classes = Classes::default();
        let mut again: Option<Instant> = None;
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Set(node)) => {
                        nodes.insert(node.metadata.name.clone().unwrap_or_default(), handlers(&node));
                    }
                    Some(Change::Gone(key, _)) => drop(nodes.remove(&key.name)),
                    Some(Change::Listed) => {}
                    None => return,
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            let offered: BTreeSet<String> = nodes.values().flatten().cloned().collect();
            // A runtime that lists no handlers says nothing about them.
            if offered.is_empty() {
                classes.idle.clear();
                again = None;
                continue;
            }
            let due = again.is_some_and(|again| again <= Instant::now());
            if offered == classes.done && !due {
                continue;
            }
            match classes.agree(&client, &offered, patience).await {
                Ok(()) => {
                    classes.done = offered;
                    again = classes.idle.values().min().map(|since| *since + patience);
                }
                Err(error) => {
                    tracing::debug!(%error, "runtime classes; trying again");
                    again = Some(Instant::now() + RETRY);
                }
            }
        }
    }
}

/// The names of a node's handlers; the default one has none.
fn handlers(node: &DynamicObject) -> BTreeSet<String> {
    let listed = list(&node.data, "/status/runtimeHandlers").iter();
    listed.map(|handler| str_of(handler, "name").to_owned()).filter(|name| !name.is_empty()).collect()
}

impl Classes {
    async fn agree(
        &mut self,
        client: &Client,
        offered: &BTreeSet<String>,
        patience: Duration,
    ) -> Result<(), kube::Error> {
        let classes = kinds::find("node.k8s.io", "runtimeclasses");
        let api = kinds::api::<DynamicObject>(client, classes, "");
        for name in offered.difference(&self.done) {
            match api.create(&PostParams::default(), &made(name)).await {
                // Somebody else's class of this name, or ours of an earlier start: it stays as it is.
                Err(error) if code(&error) == 409 => {}
                Err(error) => return Err(error),
                Ok(_) => tracing::info!(name, "runtime class made for a handler"),
            }
        }
        let ours = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        let now = Instant::now();
        let mut idle = BTreeMap::new();
        for class in api.list(&ours).await?.items.into_iter().filter(is_as_made) {
            let name = class.metadata.name.unwrap_or_default();
            if offered.contains(&name) {
                continue;
            }
            let since = self.idle.get(&name).copied().unwrap_or(now);
            if now.duration_since(since) < patience {
                idle.insert(name, since);
                continue;
            }
            // Not the one that somebody has changed since the list was made.
            let (uid, resource_version) = (class.metadata.uid, class.metadata.resource_version);
            let same = Some(Preconditions { uid, resource_version });
            or_gone(api.delete(&name, &DeleteParams { preconditions: same, ..Default::default() }).await)?;
            tracing::info!(name, "runtime class removed: no node offers its handler");
        }
        self.idle = idle;
        Ok(())
    }
}

/// The class of a handler.
fn made(name: &str) -> DynamicObject {
    let classes = kinds::find("node.k8s.io", "runtimeclasses");
    let mut class = kinds::object(classes, "", name, json!({"handler": name}));
    class.metadata.labels = Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into());
    class
}

/// Whether nobody has added anything to a class of ours: overhead, scheduling, notes.
fn is_as_made(class: &DynamicObject) -> bool {
    let made = made(class.metadata.name.as_deref().unwrap_or_default());
    let none = |count: Option<usize>| count.unwrap_or_default() == 0;
    class.data == made.data
        && class.metadata.labels == made.metadata.labels
        && none(class.metadata.annotations.as_ref().map(BTreeMap::len))
        && none(class.metadata.finalizers.as_ref().map(Vec::len))
        && none(class.metadata.owner_references.as_ref().map(Vec::len))
}

//! A RuntimeClass for every handler that some node offers, under the handler's name: whoever installs crun can name
//! it in a pod at once. Classes that people make are never touched; one of ours that they delete comes back when the
//! handler does, or at the next start.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use kube::Client;
use kube::api::{DeleteParams, ListParams, PostParams};
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

/// Runs the controller.
pub(crate) fn run(client: Client, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let mut changes = feeds.subscribe("", "nodes");
    async move {
        let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut done: BTreeSet<String> = BTreeSet::new();
        let mut retry: Option<Instant> = None;
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
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
            }
            let offered: BTreeSet<String> = nodes.values().flatten().cloned().collect();
            // A runtime that lists no handlers says nothing about them.
            if offered.is_empty() || offered == done {
                retry = None;
                continue;
            }
            match agree(&client, &offered, &done).await {
                Ok(()) => {
                    done = offered;
                    retry = None;
                }
                Err(error) => {
                    tracing::debug!(%error, "runtime classes; trying again");
                    retry = Some(Instant::now() + RETRY);
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

async fn agree(
    client: &Client,
    offered: &BTreeSet<String>,
    done: &BTreeSet<String>,
) -> Result<(), kube::Error> {
    let classes = kinds::find("node.k8s.io", "runtimeclasses");
    let api = kinds::api::<DynamicObject>(client, classes, "");
    for name in offered.difference(done) {
        let mut class = kinds::object(classes, "", name, json!({"handler": name}));
        class.metadata.labels = Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into());
        match api.create(&PostParams::default(), &class).await {
            // Somebody else's class of this name, or ours of an earlier start: it stays as it is.
            Err(error) if code(&error) == 409 => {}
            Err(error) => return Err(error),
            Ok(_) => tracing::info!(name, "runtime class made for a handler"),
        }
    }
    let ours = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    for class in api.list(&ours).await? {
        let name = class.metadata.name.unwrap_or_default();
        if class.data["handler"] == name && !offered.contains(&name) {
            or_gone(api.delete(&name, &DeleteParams::default()).await)?;
        }
    }
    Ok(())
}

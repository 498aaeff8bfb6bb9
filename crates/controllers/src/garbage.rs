//! The garbage collector: deletes what its owners left behind, in the background, before the owner (foreground) or not
//! at all (orphan).
//!
//! It watches the metadata of every kind, and remembers of it only the uids and the objects that have owners or wait for
//! dependents ([`graph`]). What it does to an object is decided on the object as it is then ([`collect`]), so that a
//! late watch cannot delete anything that should live.

mod collect;
mod graph;

use std::collections::HashSet;

use futures::{StreamExt, stream};
use kube::Client;
use sampan_api::{Resource, scheme};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;

use self::collect::Collector;
use self::graph::SharedGraph;
use crate::feed::{self, Change};
use crate::reconcile;

/// It starts a little later than the others: nothing waits for it, and the node has to get ready first.
const HEAD_START: Duration = Duration::from_secs(1);

/// The kinds that can own and be owned. Events come and go by the thousand and own nothing.
fn resources() -> impl Iterator<Item = &'static Resource> {
    scheme::resources().iter().filter(|resource| {
        std::ptr::eq(resource.storage(), *resource)
            && resource.kind != "Event"
            && ["delete", "list", "watch"].iter().all(|verb| resource.verbs.contains(verb))
    })
}

/// Runs the controller.
pub(crate) async fn run(client: Client) {
    sleep(HEAD_START).await;
    let graph = SharedGraph::default();
    let (suspects, keys) = mpsc::unbounded_channel();
    let collector = Collector::new(client.clone(), graph.clone(), suspects.clone());
    let collect = reconcile::run("garbage", UnboundedReceiverStream::new(keys), move |uid: String| {
        let collector = collector.clone();
        async move { collector.attempt(&uid).await }
    });
    tokio::join!(collect, watch(client, graph, suspects));
}

/// Follows all kinds, and names the objects that may have to go.
async fn watch(client: Client, graph: SharedGraph, suspects: mpsc::UnboundedSender<String>) {
    let feeds = resources()
        .map(|resource| feed::metadata(&client, resource).map(move |change| (resource, change)).boxed());
    let mut changes = stream::select_all(feeds);
    // Before every kind was listed, an owner that was not seen may well be there.
    let mut unlisted: HashSet<_> = resources().map(|resource| (resource.group, resource.plural)).collect();
    while let Some((resource, change)) = changes.next().await {
        let mut graph = graph.lock();
        let found = match change {
            Change::Set(object) => graph.set(resource, &object.metadata),
            Change::Gone(_, uid) => graph.gone(&uid),
            Change::Listed => {
                unlisted.remove(&(resource.group, resource.plural));
                graph.suspects()
            }
        };
        if unlisted.is_empty() {
            found.into_iter().for_each(|uid| drop(suspects.send(uid)));
        }
    }
}

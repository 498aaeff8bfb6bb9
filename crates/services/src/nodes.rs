//! The other nodes: their addresses, and the routes to their pods.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use sampan_network::{Error, NodeRoute, add_node_route, remove_node_route};
use tokio::time::Instant;

use crate::feed::{self, Change};

/// The addresses of the cluster's other nodes, as they are now.
#[derive(Clone, Default)]
pub struct NodeAddresses(Arc<RwLock<HashMap<String, Ipv4Addr>>>);

impl NodeAddresses {
    /// Whether another node has it.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().any(|known| *known == ip)
    }

    fn set(&self, node: &str, ip: Option<Ipv4Addr>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match ip {
            Some(ip) => known.insert(node.to_owned(), ip),
            None => known.remove(node),
        };
    }
}

/// Follows the nodes other than `own`; with `routes`, the way to their pods too.
pub(crate) async fn follow(client: &Client, own: &str, addresses: &NodeAddresses, routes: bool) {
    let mut changes = pin!(feed::changes::<Node>(client, "nodes"));
    let mut known = Routes::default();
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            () = tokio::time::sleep_until(known.next_look), if !known.wanted.is_empty() => {
                known.look(async |route| add_node_route(route).await).await;
                continue;
            }
        };
        let (name, ip, route) = match &change {
            None => return,
            Some(Change::Listed) => continue,
            // Nodes have no namespace: their keys begin with the slash.
            Some(Change::Gone(key)) => (key.trim_start_matches('/').to_owned(), None, None),
            Some(Change::Set(node)) => {
                (node.metadata.name.clone().unwrap_or_default(), address(node), route(node))
            }
        };
        if name == own {
            continue;
        }
        addresses.set(&name, ip);
        if !routes || route == known.wanted.get(&name).copied() {
            continue;
        }
        if let Some(before) = known.forget(&name)
            && let Err(error) = remove_node_route(&before).await
        {
            tracing::warn!(node = name, %error, "the route to its pods stays");
        }
        if let Some(route) = route {
            known.wanted.insert(name, route);
            known.look(async |route| add_node_route(route).await).await;
        }
    }
}

/// The first pause after a route that could not be made; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How often all routes are made again: the kernel drops them with a link that goes down for a moment.
const LOOK: Duration = Duration::from_secs(60);

/// The ways to the pods of other nodes, which the kernel may refuse now and take later, and forget at any time.
struct Routes {
    wanted: HashMap<String, NodeRoute>,
    /// Those that were made, at least once since they failed the last time.
    made: HashSet<String>,
    retry: Duration,
    next_look: Instant,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            wanted: HashMap::new(),
            made: HashSet::new(),
            retry: FIRST_RETRY,
            next_look: Instant::now() + LOOK,
        }
    }
}

impl Routes {
    /// The node has no route any more; the one that it had, if it was made.
    fn forget(&mut self, node: &str) -> Option<NodeRoute> {
        let route = self.wanted.remove(node);
        self.made.remove(node).then_some(route).flatten()
    }

    /// Makes all routes; one that is there stays as it is.
    async fn look(&mut self, add: impl AsyncFn(&NodeRoute) -> Result<(), Error>) {
        let mut failed = false;
        for (node, route) in &self.wanted {
            match add(route).await {
                Ok(()) => {
                    if self.made.insert(node.clone()) {
                        tracing::info!(node, pods = %route.pods, via = %route.via, "route to its pods");
                    }
                }
                Err(error) => {
                    // Told when it begins, not with each try.
                    if self.made.remove(node) || self.retry == FIRST_RETRY {
                        let why =
                            std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                        tracing::warn!(
                            node,
                            error = format!("{error}: {why}"),
                            "its pods are not reached over a route of ours yet: is it on another network?"
                        );
                    }
                    failed = true;
                }
            }
        }
        let pause = if failed { self.retry } else { LOOK };
        self.retry = if failed { (self.retry * 2).min(LOOK) } else { FIRST_RETRY };
        self.next_look = Instant::now() + pause;
    }
}

fn address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).next()
}

fn route(node: &Node) -> Option<NodeRoute> {
    let pods = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    // A node that says loopback is on this machine.
    let via = address(node).filter(|ip| !ip.is_loopback())?;
    Some(NodeRoute { pods, via })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_route_that_the_kernel_refuses_is_tried_again_and_one_that_it_dropped_comes_back() {
        let mut routes = Routes::default();
        let route = NodeRoute { pods: "10.42.1.0/24".parse().unwrap(), via: "192.0.2.7".parse().unwrap() };
        routes.wanted.insert("other".into(), route);
        let (began, tries, up) = (Instant::now(), Cell::new(0), Cell::new(false));
        let add = async |_: &NodeRoute| {
            tries.set(tries.get() + 1);
            if up.get() { Ok(()) } else { Err(Error::NoLink("eth0".into())) }
        };
        for expected in [1, 2, 4] {
            routes.look(add).await;
            assert_eq!((routes.next_look - Instant::now()).as_secs(), expected);
            tokio::time::sleep_until(routes.next_look).await;
        }
        assert!(routes.forget("other").is_none(), "it was never made");
        routes.wanted.insert("other".into(), route);
        up.set(true);
        routes.look(add).await;
        assert_eq!((tries.get(), began.elapsed().as_secs()), (4, 7));
        assert_eq!(routes.next_look - Instant::now(), LOOK);
        routes.look(add).await;
        assert_eq!(tries.get(), 5);
        assert_eq!(routes.forget("other"), Some(route));
    }
}

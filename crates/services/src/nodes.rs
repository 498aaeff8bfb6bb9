//! The other nodes: their addresses, and the routes to their pods.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use sampan_network::{NodeRoute, add_node_route, remove_node_route};

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
    let mut known: HashMap<String, NodeRoute> = HashMap::new();
    while let Some(change) = changes.next().await {
        let (name, ip, route) = match &change {
            Change::Listed => continue,
            // Nodes have no namespace: their keys begin with the slash.
            Change::Gone(key) => (key.trim_start_matches('/').to_owned(), None, None),
            Change::Set(node) => (node.metadata.name.clone().unwrap_or_default(), address(node), route(node)),
        };
        if name == own {
            continue;
        }
        addresses.set(&name, ip);
        let before = known.get(&name).copied();
        if !routes || route == before {
            continue;
        }
        if let Some(before) = known.remove(&name)
            && let Err(error) = remove_node_route(&before).await
        {
            tracing::warn!(node = name, %error, "the route to its pods stays");
        }
        if let Some(route) = route {
            match add_node_route(&route).await {
                Ok(()) => {
                    tracing::info!(node = name, pods = %route.pods, via = %route.via, "route to its pods")
                }
                Err(error) => {
                    let error = format!(
                        "{error}: {}",
                        std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
                    );
                    tracing::warn!(
                        node = name,
                        error,
                        "its pods are not reached over a route of ours: is it on another network?"
                    );
                }
            }
            known.insert(name, route);
        }
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

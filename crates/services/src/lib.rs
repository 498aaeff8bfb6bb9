//! Services, from the API to packets and names: one watch of Services and EndpointSlices, whose changes become rules of
//! the proxy (`sampan-network`) and records of the DNS server (`sampan-dns`).
//!
//! What is kept is what rules and records are made of, not the objects. Names follow at once; rules in one transaction
//! at a time, with everything that changed while the last one ran.

mod cluster_dns;
mod feed;
mod nodes;
mod ports;
mod proxy;
mod records;
mod view;

use std::{collections::HashSet, pin::pin, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Client;
use sampan_dns::Zone;
use sampan_network::RuleTable;
use tokio_util::sync::CancellationToken;

pub use self::{cluster_dns::ClusterDns, nodes::NodeAddresses};
use self::{
    feed::Change,
    proxy::Proxy,
    view::{ServiceKey, View},
};

/// How many changes are taken together when they are there together.
const BATCH: usize = 256;

/// What is needed to follow the Services.
pub struct ServicesConfig {
    /// The API.
    pub client: Client,
    /// This node: endpoints on it are local.
    pub node_name: String,
    /// Where rules go.
    pub rules: Arc<RuleTable>,
    /// Where names go.
    pub zone: Zone,
    /// The DNS server that listens for this cluster, if one does.
    pub cluster_dns: Option<ClusterDns>,
    /// Where the addresses of the other nodes are kept.
    pub nodes: NodeAddresses,
    /// Whether routes of this machine lead to their pods.
    pub routes: bool,
}

/// Follows the Services until `shutdown`.
pub async fn run(config: ServicesConfig, shutdown: CancellationToken) {
    let proxy = Proxy::default();
    let dns_gone = Arc::new(tokio::sync::Notify::new());
    let following = follow(&config, &proxy, &dns_gone);
    let keeping_dns = async {
        if let Some(dns) = &config.cluster_dns {
            cluster_dns::keep(&config.client, dns, &dns_gone).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = nodes::follow(&config.client, &config.node_name, &config.nodes, config.routes) => {}
        () = following => {}
        () = proxy.run(&config.rules) => {}
        () = keeping_dns => {}
        () = shutdown.cancelled() => {}
    }
}

async fn follow(config: &ServicesConfig, proxy: &Proxy, dns_gone: &tokio::sync::Notify) {
    let services = feed::changes::<Service>(&config.client, "services").map(Event::Service);
    let slices = feed::changes::<EndpointSlice>(&config.client, "endpointslices").map(Event::Slice);
    let mut events = pin!(stream::select(services, slices).ready_chunks(BATCH));
    let mut view = View::default();
    let (mut services_listed, mut slices_listed) = (false, false);
    while let Some(batch) = events.next().await {
        let mut dirty: HashSet<ServiceKey> = HashSet::new();
        for event in batch {
            match event {
                Event::Service(Change::Set(service)) => dirty.extend(view.set_service(&service)),
                Event::Service(Change::Gone(key)) => {
                    if key == cluster_dns::KEY {
                        dns_gone.notify_one();
                    }
                    dirty.extend(view.remove_service(&key));
                }
                Event::Slice(Change::Set(slice)) => dirty.extend(view.set_slice(&slice)),
                Event::Slice(Change::Gone(key)) => {
                    if key == cluster_dns::KEY {
                        dns_gone.notify_one();
                    }
                    dirty.extend(view.remove_slice(&key));
                }
                Event::Service(Change::Listed) => services_listed = true,
                Event::Slice(Change::Listed) => slices_listed = true,
            }
        }
        for key in &dirty {
            let (service, slices) = (view.service(key), view.slices(key));
            let records = service.map(|service| records::records(key, service, &slices)).unwrap_or_default();
            config.zone.set(&key.to_string(), records);
            let ports = service.map(|service| ports::ports(key, service, &slices, &config.node_name));
            proxy.set(key.to_string(), ports.unwrap_or_default());
        }
        if services_listed && slices_listed {
            proxy.known();
            config.zone.set_complete(true);
        }
    }
}

enum Event {
    Service(Change<Service>),
    Slice(Change<EndpointSlice>),
}

//! What all pod workers of a node share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::backoff::Backoff;
use crate::cgroups::PodCgroups;
use crate::config::KubeletConfig;
use crate::events::EventRecorder;
use crate::eviction::Pressure;
use crate::generate::dns::{NodeDns, node_resolv_conf};
use crate::images::Images;
use crate::images::collect::RoomRequests;
use crate::metrics::Metrics;
use crate::node::admission::Admitted;
use crate::node::capacity;
use crate::objects::Objects;
use crate::static_pods::mirror::Mirrors;
use crate::status::writer::StatusWriter;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::Removals;

/// A container that ran this long before it ended starts its back-off afresh (POD-12).
const STABLE_AFTER: Duration = Duration::from_secs(600);

/// The shared part of the kubelet.
pub(crate) struct NodeContext {
    pub(crate) config: KubeletConfig,
    pub(crate) recorder: EventRecorder,
    /// What is counted; others add to it.
    pub(crate) metrics: Metrics,
    pub(crate) status: StatusWriter,
    /// The API's pictures of this node's static pods.
    pub(crate) mirrors: Mirrors,
    pub(crate) objects: Objects,
    pub(crate) images: Images,
    /// Where to ask for room on the disk of images.
    pub(crate) room: RoomRequests,
    pub(crate) restarts: Mutex<Backoff>,
    /// The prefix of container ids, from the runtime's `Version`.
    pub(crate) runtime_name: String,
    /// Whether the runtime makes cgroups through systemd.
    pub(crate) systemd_cgroups: bool,
    /// What the pods that run here asked for.
    pub(crate) admitted: Admitted,
    /// What the node is short of now.
    pub(crate) pressure: tokio::sync::watch::Sender<Vec<Pressure>>,
    /// The cgroups of the node, its classes and its pods.
    pub(crate) cgroups: PodCgroups,
    /// Where what pods leave behind is removed.
    pub(crate) removals: Removals,
    /// The ids of pods with user namespaces of their own.
    pub(crate) user_namespaces: UserNamespaces,
    /// When this kubelet began.
    pub(crate) started: jiff::Timestamp,
    /// The node's memory in bytes.
    pub(crate) memory_capacity: i64,
    /// What pods may use, for downward API defaults (ENV-23).
    pub(crate) allocatable: BTreeMap<String, Quantity>,
    /// The node's addresses as text.
    pub(crate) host_ips: Vec<String>,
}

impl NodeContext {
    /// `<data>/pods/<uid>`.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// What pods may use, by what the machine has now.
    pub(crate) fn node_allocatable(&self) -> BTreeMap<String, Quantity> {
        capacity::allocatable(&self.config, &capacity::capacity(&self.config))
    }

    /// Where Localhost seccomp profiles are looked for.
    pub(crate) fn seccomp_root(&self) -> String {
        self.config.data_dir.join("seccomp").to_string_lossy().into_owned()
    }

    /// Restart back-off of containers.
    pub(crate) fn restarts(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_restart_backoff(config: &KubeletConfig) -> Mutex<Backoff> {
        Mutex::new(
            Backoff::new(config.clock.clone(), STABLE_AFTER)
                .with_maximum(config.max_container_restart_period),
        )
    }

    /// The node's view of DNS; the resolver file is read each time, since DHCP clients rewrite it.
    pub(crate) fn node_dns(&self) -> NodeDns {
        NodeDns {
            resolv_conf: node_resolv_conf(&self.config.resolv_conf),
            cluster_dns: self.config.cluster_dns.clone(),
            cluster_domain: self.config.cluster_domain.clone(),
        }
    }
}

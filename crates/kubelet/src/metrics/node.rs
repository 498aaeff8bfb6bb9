//! Metrics of the node: evictions, admission, shutdown.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, add};

/// See the fields; names are upstream's.
pub(crate) struct NodeMetrics {
    /// `kubelet_evictions{eviction_signal}`: without a `_total`, as upstream has it.
    pub(crate) evictions: Counters<1>,
    /// `kubelet_admission_rejections_total{reason}`: pods that the node refused.
    pub(crate) rejections: Counters<1>,
    /// `kubelet_graceful_shutdown_start_time_seconds`.
    pub(crate) shutdown_start: Gauge,
    /// `kubelet_graceful_shutdown_end_time_seconds`.
    pub(crate) shutdown_end: Gauge,
}

impl NodeMetrics {
    pub(super) fn register(registry: &mut Registry, node_name: &str) -> Self {
        let name: Gauges<1> = Gauges::default();
        name.get_or_create(&[("node", node_name.to_owned())]).set(1);
        add(registry, "kubelet_node_name", "The node's name; the value is always 1", name);
        Self {
            evictions: add(
                registry,
                "kubelet_evictions",
                "Number of pods evicted by signal",
                Counters::default(),
            ),
            rejections: add(
                registry,
                "kubelet_admission_rejections",
                "Number of pods that this node refused, by reason",
                Counters::default(),
            ),
            shutdown_start: add(
                registry,
                "kubelet_graceful_shutdown_start_time_seconds",
                "When the last graceful shutdown began, as seconds of the epoch",
                Gauge::default(),
            ),
            shutdown_end: add(
                registry,
                "kubelet_graceful_shutdown_end_time_seconds",
                "When the last graceful shutdown ended, as seconds of the epoch",
                Gauge::default(),
            ),
        }
    }
}

//! Metrics of the node: evictions, admission, shutdown.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges};

/// See the fields; names are upstream's.
pub(crate) struct NodeMetrics {
    /// `kubelet_evictions{eviction_signal}`: a counter upstream, without the `_total` that ours would get.
    pub(crate) evictions: Gauges<1>,
    /// `kubelet_admission_rejections_total{reason}`: pods that the node refused.
    pub(crate) rejections: Counters<1>,
    /// `kubelet_graceful_shutdown_start_time_seconds`.
    pub(crate) shutdown_start: Gauge,
    /// `kubelet_graceful_shutdown_end_time_seconds`.
    pub(crate) shutdown_end: Gauge,
}

impl NodeMetrics {
    pub(super) fn register(registry: &mut Registry, node_name: &str) -> Self {
        let metrics = Self {
            evictions: Gauges::default(),
            rejections: Counters::default(),
            shutdown_start: Gauge::default(),
            shutdown_end: Gauge::default(),
        };
        let name: Gauges<1> = Gauges::default();
        name.get_or_create(&[("node", node_name.to_owned())]).set(1);
        registry.register("kubelet_node_name", "The node's name; the value is always 1", name);
        registry.register("kubelet_evictions", "Number of pods evicted by signal", metrics.evictions.clone());
        registry.register(
            "kubelet_admission_rejections",
            "Number of pods that this node refused, by reason",
            metrics.rejections.clone(),
        );
        registry.register(
            "kubelet_graceful_shutdown_start_time_seconds",
            "When the last graceful shutdown began, as seconds of the epoch",
            metrics.shutdown_start.clone(),
        );
        registry.register(
            "kubelet_graceful_shutdown_end_time_seconds",
            "When the last graceful shutdown ended, as seconds of the epoch",
            metrics.shutdown_end.clone(),
        );
        metrics
    }
}

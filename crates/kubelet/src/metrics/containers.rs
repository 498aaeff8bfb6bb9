//! Metrics of containers, their hooks, and the calls to the runtime.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Histograms, default_seconds};
use crate::pod_ref::ContainerKind;

/// See the fields; names are upstream's.
pub(crate) struct ContainerMetrics {
    /// `kubelet_running_containers{container_state}`: told at each scrape.
    pub(crate) by_state: Gauges<1>,
    /// `kubelet_started_containers_total{container_type}`.
    started: Counters<1>,
    /// `kubelet_started_containers_errors_total{container_type,code}`.
    start_errors: Counters<2>,
    /// `kubelet_lifecycle_handler_http_fallbacks_total`: HTTPS hooks that were answered in plain HTTP.
    pub(crate) http_fallbacks: Counter,
    /// `kubelet_sleep_action_terminated_early_total`: sleep hooks that the grace period cut.
    pub(crate) sleeps_cut: Counter,
    /// `kubelet_runtime_operations_total{operation_type}`.
    operations: Counters<1>,
    /// `kubelet_runtime_operations_errors_total{operation_type}`.
    operation_errors: Counters<1>,
    /// `kubelet_runtime_operations_duration_seconds{operation_type}`.
    operation_seconds: Histograms<1>,
}

impl ContainerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            by_state: Gauges::default(),
            started: Counters::default(),
            start_errors: Counters::default(),
            http_fallbacks: Counter::default(),
            sleeps_cut: Counter::default(),
            operations: Counters::default(),
            operation_errors: Counters::default(),
            operation_seconds: Histograms::new_with_constructor(default_seconds),
        };
        registry.register(
            "kubelet_running_containers",
            "Number of containers by state",
            metrics.by_state.clone(),
        );
        registry.register(
            "kubelet_started_containers",
            "Number of containers that were asked to start",
            metrics.started.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Number of containers that did not start, by reason",
            metrics.start_errors.clone(),
        );
        registry.register(
            "kubelet_lifecycle_handler_http_fallbacks",
            "Number of lifecycle handlers that went from HTTPS to HTTP",
            metrics.http_fallbacks.clone(),
        );
        registry.register(
            "kubelet_sleep_action_terminated_early",
            "Number of sleep hooks that ended before their time",
            metrics.sleeps_cut.clone(),
        );
        registry.register(
            "kubelet_runtime_operations",
            "Number of calls to the runtime by operation",
            metrics.operations.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_errors",
            "Number of failed calls to the runtime by operation",
            metrics.operation_errors.clone(),
        );
        registry.register(
            "kubelet_runtime_operations_duration_seconds",
            "Seconds that calls to the runtime took by operation",
            metrics.operation_seconds.clone(),
        );
        metrics
    }

    /// A container is about to be started.
    pub(crate) fn started(&self, kind: ContainerKind) {
        self.started.get_or_create(&[("container_type", container_type(kind))]).inc();
    }

    /// A container did not start; `reason` is its waiting reason, such as `ErrImagePull`.
    pub(crate) fn start_failed(&self, kind: ContainerKind, reason: &str) {
        let labels = [("container_type", container_type(kind)), ("code", reason.to_owned())];
        self.start_errors.get_or_create(&labels).inc();
    }

    /// A call to the runtime ended after `seconds`.
    pub(crate) fn operation(&self, name: &'static str, seconds: f64, failed: bool) {
        let labels = [("operation_type", name.to_owned())];
        self.operations.get_or_create(&labels).inc();
        self.operation_seconds.get_or_create(&labels).observe(seconds);
        if failed {
            self.operation_errors.get_or_create(&labels).inc();
        }
    }
}

/// Upstream's word for the list that a container is in.
fn container_type(kind: ContainerKind) -> String {
    match kind {
        ContainerKind::Init => "init_container",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral_container",
    }
    .to_owned()
}

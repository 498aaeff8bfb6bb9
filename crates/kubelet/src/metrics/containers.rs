//! Metrics of containers, their hooks, and the calls to the runtime.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Operations, add};
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
    /// The calls to the runtime.
    pub(crate) operations: Operations,
}

impl ContainerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            by_state: add(
                registry,
                "kubelet_running_containers",
                "Number of containers by state",
                Gauges::default(),
            ),
            started: add(
                registry,
                "kubelet_started_containers",
                "Number of containers that were asked to start",
                Counters::default(),
            ),
            start_errors: add(
                registry,
                "kubelet_started_containers_errors",
                "Number of containers that did not start, by reason",
                Counters::default(),
            ),
            http_fallbacks: add(
                registry,
                "kubelet_lifecycle_handler_http_fallbacks",
                "Number of lifecycle handlers that went from HTTPS to HTTP",
                Counter::default(),
            ),
            sleeps_cut: add(
                registry,
                "kubelet_sleep_action_terminated_early",
                "Number of sleep hooks that ended before their time",
                Counter::default(),
            ),
            operations: Operations::register(registry),
        }
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

//! Metrics of pods: how many there are, and how long their way to Running took.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Histograms, default_seconds, start_seconds};

/// See the fields; names are upstream's.
pub(crate) struct PodMetrics {
    /// `kubelet_running_pods`: pods with a running sandbox, told at each scrape.
    pub(crate) running: prometheus_client::metrics::gauge::Gauge,
    /// `kubelet_desired_pods{static}`: pods that shall run here, told at each scrape.
    pub(crate) desired: Gauges<1>,
    /// `kubelet_mirror_pods`: mirror pods in the API, told at each scrape.
    pub(crate) mirror: prometheus_client::metrics::gauge::Gauge,
    /// `kubelet_started_pods_total`: sandboxes that were asked for.
    pub(crate) started: Counter,
    /// `kubelet_started_pods_errors_total`: sandboxes that could not be made.
    pub(crate) start_errors: Counter,
    /// `kubelet_orphaned_runtime_pods_total`: pods found in the runtime that the API does not know.
    pub(crate) orphaned: Counter,
    /// `kubelet_pod_start_duration_seconds`: first seen by the kubelet to Running.
    pub(crate) start_duration: Histogram,
    /// `kubelet_pod_start_sli_duration_seconds`: creation to Running without image pulls and init containers.
    pub(crate) start_sli: Histogram,
    /// `kubelet_pod_start_total_duration_seconds`: creation to Running with everything.
    pub(crate) start_total: Histogram,
    /// `kubelet_pod_worker_duration_seconds{operation_type}`: one round of a worker: sync or terminate.
    pub(crate) worker_duration: Histograms<1>,
    /// `kubelet_pod_status_sync_duration_seconds`: a status handed over until the API has it.
    pub(crate) status_sync: Histogram,
    /// `kubelet_pod_pending_resizes{reason}`: resizes that wait or cannot be.
    pub(crate) pending_resizes: Gauges<1>,
    /// `kubelet_container_requested_resizes_total{resource,requirement,operation}`.
    pub(crate) requested_resizes: Counters<3>,
}

impl PodMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            running: Default::default(),
            desired: Gauges::default(),
            mirror: Default::default(),
            started: Counter::default(),
            start_errors: Counter::default(),
            orphaned: Counter::default(),
            start_duration: start_seconds(),
            start_sli: start_seconds(),
            start_total: start_seconds(),
            worker_duration: Histograms::new_with_constructor(default_seconds),
            status_sync: default_seconds(),
            pending_resizes: Gauges::default(),
            requested_resizes: Counters::default(),
        };
        registry.register(
            "kubelet_running_pods",
            "Number of pods that have a running pod sandbox",
            metrics.running.clone(),
        );
        registry.register(
            "kubelet_desired_pods",
            "Number of pods that this node is to run",
            metrics.desired.clone(),
        );
        registry.register(
            "kubelet_mirror_pods",
            "Number of mirror pods of this node",
            metrics.mirror.clone(),
        );
        registry.register(
            "kubelet_started_pods",
            "Number of pod sandboxes that were asked for",
            metrics.started.clone(),
        );
        registry.register(
            "kubelet_started_pods_errors",
            "Number of pod sandboxes that could not be made",
            metrics.start_errors.clone(),
        );
        registry.register(
            "kubelet_orphaned_runtime_pods",
            "Number of pods found in the runtime that the API does not know",
            metrics.orphaned.clone(),
        );
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "Seconds from the kubelet seeing a pod for the first time to the pod running",
            metrics.start_duration.clone(),
        );
        registry.register("kubelet_pod_start_sli_duration_seconds", "Seconds to start a pod, without image pulls and init containers, from its creation until its containers are reported as started", metrics.start_sli.clone());
        registry.register("kubelet_pod_start_total_duration_seconds", "Seconds to start a pod with everything, from its creation until its containers are reported as started", metrics.start_total.clone());
        registry.register(
            "kubelet_pod_worker_duration_seconds",
            "Seconds that one round of a pod worker took, by operation",
            metrics.worker_duration.clone(),
        );
        registry.register(
            "kubelet_pod_status_sync_duration_seconds",
            "Seconds from a status being known until the API has it",
            metrics.status_sync.clone(),
        );
        registry.register(
            "kubelet_pod_pending_resizes",
            "Number of pod resizes that wait, by reason",
            metrics.pending_resizes.clone(),
        );
        registry.register(
            "kubelet_container_requested_resizes",
            "Number of resizes asked for, by resource, requirement and direction",
            metrics.requested_resizes.clone(),
        );
        metrics
    }
}

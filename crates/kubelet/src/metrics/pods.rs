//! Metrics of pods: how many there are, and how long their way to Running took.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Histograms, add, default_seconds, start_seconds};

/// See the fields; names are upstream's.
pub(crate) struct PodMetrics {
    /// `kubelet_running_pods`: pods with a running sandbox, told at each scrape.
    pub(crate) running: Gauge,
    /// `kubelet_desired_pods{static}`: pods that shall run here, told at each scrape.
    pub(crate) desired: Gauges<1>,
    /// `kubelet_mirror_pods`: mirror pods in the API, told at each scrape.
    pub(crate) mirror: Gauge,
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
    /// `kubelet_pod_worker_duration_seconds{operation_type}`: one round of a worker: create, sync or kill.
    pub(crate) worker_duration: Histograms<1>,
    /// `kubelet_pod_worker_start_duration_seconds`: first seen by the kubelet to the first round of its worker.
    pub(crate) worker_start: Histogram,
    /// `kubelet_pod_status_sync_duration_seconds`: a status handed over until the API has it.
    pub(crate) status_sync: Histogram,
    /// `kubelet_pod_pending_resizes{reason}`: resizes that wait or cannot be.
    pub(crate) pending_resizes: Gauges<1>,
    /// `kubelet_container_requested_resizes_total{resource,requirement,operation}`.
    pub(crate) requested_resizes: Counters<3>,
}

impl PodMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            running: add(
                registry,
                "kubelet_running_pods",
                "Number of pods that have a running pod sandbox",
                Gauge::default(),
            ),
            desired: add(
                registry,
                "kubelet_desired_pods",
                "Number of pods that this node is to run",
                Gauges::default(),
            ),
            mirror: add(
                registry,
                "kubelet_mirror_pods",
                "Number of mirror pods of this node",
                Gauge::default(),
            ),
            started: add(
                registry,
                "kubelet_started_pods",
                "Number of pod sandboxes that were asked for",
                Counter::default(),
            ),
            start_errors: add(
                registry,
                "kubelet_started_pods_errors",
                "Number of pod sandboxes that could not be made",
                Counter::default(),
            ),
            orphaned: add(
                registry,
                "kubelet_orphaned_runtime_pods",
                "Number of pods found in the runtime that the API does not know",
                Counter::default(),
            ),
            start_duration: add(
                registry,
                "kubelet_pod_start_duration_seconds",
                "Seconds from the kubelet seeing a pod for the first time to the pod running",
                start_seconds(),
            ),
            start_sli: add(
                registry,
                "kubelet_pod_start_sli_duration_seconds",
                "Seconds to start a pod, without image pulls and init containers, from its creation until its containers are reported as started",
                start_seconds(),
            ),
            start_total: add(
                registry,
                "kubelet_pod_start_total_duration_seconds",
                "Seconds to start a pod with everything, from its creation until its containers are reported as started",
                start_seconds(),
            ),
            worker_duration: add(
                registry,
                "kubelet_pod_worker_duration_seconds",
                "Seconds that one round of a pod worker took, by operation",
                Histograms::new_with_constructor(default_seconds),
            ),
            worker_start: add(
                registry,
                "kubelet_pod_worker_start_duration_seconds",
                "Seconds from the kubelet seeing a pod for the first time to its worker beginning",
                default_seconds(),
            ),
            status_sync: add(
                registry,
                "kubelet_pod_status_sync_duration_seconds",
                "Seconds from a status being known until the API has it",
                default_seconds(),
            ),
            pending_resizes: add(
                registry,
                "kubelet_pod_pending_resizes",
                "Number of pod resizes that wait, by reason",
                Gauges::default(),
            ),
            requested_resizes: add(
                registry,
                "kubelet_container_requested_resizes",
                "Number of resizes asked for, by resource, requirement and direction",
                Counters::default(),
            ),
        }
    }
    /// One round of a worker ended: `create`, `sync` or `kill`, as upstream names them.
    pub(crate) fn round(&self, operation: &str, took: Duration) {
        let labels = [("operation_type", operation.to_owned())];
        self.worker_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Somebody asked for other resources: (resource, requirement, operation).
    pub(crate) fn resize_requested(&self, [resource, requirement, operation]: [&str; 3]) {
        let labels = [
            ("resource", resource.to_owned()),
            ("requirement", requirement.to_owned()),
            ("operation", operation.to_owned()),
        ];
        self.requested_resizes.get_or_create(&labels).inc();
    }
}

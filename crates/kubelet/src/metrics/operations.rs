//! Metrics of the calls to the runtime.

use std::time::Duration;

use prometheus_client::registry::Registry;

use super::{Counters, Histograms, add, default_seconds};

/// See the fields; names are upstream's. Clones count into the same series.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    /// `kubelet_runtime_operations_total{operation_type}`.
    total: Counters<1>,
    /// `kubelet_runtime_operations_errors_total{operation_type}`.
    errors: Counters<1>,
    /// `kubelet_runtime_operations_duration_seconds{operation_type}`.
    seconds: Histograms<1>,
}

impl Operations {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let seconds = Histograms::new_with_constructor(default_seconds as fn() -> _);
        Self {
            total: add(
                registry,
                "kubelet_runtime_operations",
                "Number of calls to the runtime by operation",
                Counters::default(),
            ),
            errors: add(
                registry,
                "kubelet_runtime_operations_errors",
                "Number of failed calls to the runtime by operation",
                Counters::default(),
            ),
            seconds: add(
                registry,
                "kubelet_runtime_operations_duration_seconds",
                "Seconds that calls to the runtime took by operation",
                seconds,
            ),
        }
    }

    /// A call ended.
    pub(crate) fn ended(&self, operation: &'static str, took: Duration, failed: bool) {
        let labels = [("operation_type", operation.to_owned())];
        self.total.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if failed {
            self.errors.get_or_create(&labels).inc();
        }
    }
}

//! Metrics of probes, shown at `/metrics/probes`.

use k8s_openapi::api::core::v1::Pod;
use prometheus_client::registry::Registry;

use super::{Counters, Histograms, Labels, add, default_seconds};
use crate::pod_ref;

/// See the fields; names are upstream's.
pub(crate) struct ProbeMetrics {
    /// `prober_probe_total{probe_type,result,container,pod,namespace,pod_uid}`; result is `successful`,
    /// `failed` or `unknown`.
    pub(crate) total: Counters<6>,
    /// `prober_probe_duration_seconds{probe_type,container,pod,namespace}`.
    pub(crate) duration: Histograms<4>,
}

impl ProbeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            total: add(
                registry,
                "prober_probe",
                "Number of probes of a container by kind and result",
                Counters::default(),
            ),
            duration: add(
                registry,
                "prober_probe_duration_seconds",
                "Seconds that probes took",
                Histograms::new_with_constructor(default_seconds),
            ),
        }
    }

    /// A probe ended. `probe_type` is `Liveness`, `Readiness` or `Startup`.
    pub(crate) fn ended(&self, pod: &Pod, container: &str, probe_type: &str, result: &str, seconds: f64) {
        self.total.get_or_create(&probe_labels(pod, container, probe_type, result)).inc();
        let [kind, _, container, name, namespace, _] = probe_labels(pod, container, probe_type, result);
        self.duration.get_or_create(&[kind, container, name, namespace]).observe(seconds);
    }

    /// The container is gone: so are its series.
    pub(crate) fn forget(&self, pod: &Pod, container: &str) {
        for probe_type in ["Liveness", "Readiness", "Startup"] {
            for result in ["successful", "failed", "unknown"] {
                let labels = probe_labels(pod, container, probe_type, result);
                self.total.remove(&labels);
                let [kind, _, container, name, namespace, _] = labels;
                self.duration.remove(&[kind, container, name, namespace]);
            }
        }
    }
}

/// The labels of one series of `prober_probe_total`.
fn probe_labels(pod: &Pod, container: &str, probe_type: &str, result: &str) -> Labels<6> {
    [
        ("probe_type", probe_type.to_owned()),
        ("result", result.to_owned()),
        ("container", container.to_owned()),
        ("pod", pod_ref::name(pod).to_owned()),
        ("namespace", pod_ref::namespace(pod).to_owned()),
        ("pod_uid", pod_ref::uid(pod).to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::Pod;

    use crate::metrics::Metrics;

    #[test]
    fn pod_43_probes_are_counted_by_kind_and_result_until_their_pod_is_gone() {
        let metrics = Metrics::new("n1");
        let pod: Pod = serde_json::from_value(
            serde_json::json!({"metadata": {"name": "p", "namespace": "ns", "uid": "uid-1"}}),
        )
        .unwrap();
        metrics.probes.ended(&pod, "c", "Readiness", "failed", 0.2);
        metrics.probes.ended(&pod, "c", "Readiness", "failed", 0.2);
        metrics.probes.ended(&pod, "c", "Liveness", "successful", 0.2);
        let text = metrics.probes_text();
        assert!(text.contains("# TYPE prober_probe_total counter\n"), "{text}");
        let labels = "container=\"c\",pod=\"p\",namespace=\"ns\"";
        for line in [
            format!(
                "prober_probe_total{{probe_type=\"Readiness\",result=\"failed\",{labels},pod_uid=\"uid-1\"}} 2\n"
            ),
            format!(
                "prober_probe_total{{probe_type=\"Liveness\",result=\"successful\",{labels},pod_uid=\"uid-1\"}} 1\n"
            ),
            format!("prober_probe_duration_seconds_count{{probe_type=\"Readiness\",{labels}}} 2\n"),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(!metrics.text().contains("prober_probe"), "a page of their own");
        metrics.probes.forget(&pod, "c");
        assert!(!metrics.probes_text().contains("uid-1"));
    }
}

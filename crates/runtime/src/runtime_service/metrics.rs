//! ListMetricDescriptors, ListPodSandboxMetrics and its stream: the cAdvisor names that cgroups can give.

use std::sync::Arc;

use sampan_cri::v1;

use crate::cgroups::read::CgroupUsage;
use crate::runtime::Runtime;
use crate::state::ContainerState;

struct Descriptor {
    name: &'static str,
    help: &'static str,
    kind: v1::MetricType,
    read: fn(&CgroupUsage) -> Option<u64>,
}

/// Each has the labels of [`LABELS`].
const METRICS: &[Descriptor] = &[
    Descriptor {
        name: "container_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed in seconds.",
        kind: v1::MetricType::Counter,
        read: |usage| usage.cpu_nanos.map(|nanos| nanos / 1_000_000_000),
    },
    Descriptor {
        name: "container_memory_usage_bytes",
        help: "Current memory usage in bytes, including all memory regardless of when it was accessed.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.memory,
    },
    Descriptor {
        name: "container_memory_working_set_bytes",
        help: "Current working set in bytes.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.working_set,
    },
    Descriptor {
        name: "container_memory_rss",
        help: "Size of RSS in bytes.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.rss,
    },
    Descriptor {
        name: "container_memory_swap",
        help: "Container swap usage in bytes.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.swap,
    },
    Descriptor {
        name: "container_spec_memory_limit_bytes",
        help: "Memory limit for the container.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.limit,
    },
    Descriptor {
        name: "container_processes",
        help: "Number of processes running inside the container.",
        kind: v1::MetricType::Gauge,
        read: |usage| usage.processes,
    },
];

const LABELS: &[&str] = &["id", "name", "image", "pod", "namespace", "container"];

pub(super) fn descriptors() -> Vec<v1::MetricDescriptor> {
    METRICS
        .iter()
        .map(|metric| v1::MetricDescriptor {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            label_keys: LABELS.iter().map(|label| (*label).to_owned()).collect(),
        })
        .collect()
}

/// Of running containers in ready sandboxes.
pub(super) fn list(runtime: &Arc<Runtime>) -> Vec<v1::PodSandboxMetrics> {
    let ready = runtime.all_sandboxes().into_iter().filter(|sandbox| sandbox.is_ready());
    ready
        .map(|sandbox| {
            let (pod, parent) = {
                let record = sandbox.record();
                (record.config.metadata.clone().unwrap_or_default(), record.cgroup_parent.clone())
            };
            let read = |cgroup: &str, name: &str, image: &str, container: &str| {
                let usage = runtime.host.cgroups.usage(cgroup);
                let labels = [cgroup, name, image, &pod.name, &pod.namespace, container].map(str::to_owned);
                metrics(&usage, &labels)
            };
            let container_metrics = runtime
                .containers_of(&sandbox.id)
                .iter()
                .map(|container| container.record().clone())
                .filter(|record| record.status.state == ContainerState::Running)
                .map(|record| {
                    let name = record.config.metadata.clone().unwrap_or_default().name;
                    v1::ContainerMetrics {
                        container_id: record.id.clone(),
                        metrics: read(&record.cgroup, &record.id, &record.image_ref, &name),
                    }
                })
                .collect();
            v1::PodSandboxMetrics {
                pod_sandbox_id: sandbox.id.clone(),
                metrics: read(&parent, &sandbox.id, "", ""),
                container_metrics,
            }
        })
        .collect()
}

fn metrics(usage: &CgroupUsage, labels: &[String]) -> Vec<v1::Metric> {
    METRICS
        .iter()
        .filter_map(|metric| {
            Some(v1::Metric {
                name: metric.name.to_owned(),
                timestamp: 0,
                metric_type: metric.kind.into(),
                label_values: labels.to_vec(),
                value: Some(v1::UInt64Value { value: (metric.read)(usage)? }),
            })
        })
        .collect()
}

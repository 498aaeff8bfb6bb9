//! `/metrics/resource` and `/metrics/cadvisor`: a snapshot in the Prometheus text format, under the names that
//! upstream's kubelet and cAdvisor give.

use std::fmt::{Display, Write};

use super::{PodUsage, Snapshot};

/// A page that is being written: one comment per metric, then its series.
#[derive(Default)]
struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds of CPU time in a double, as everywhere in Prometheus")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[allow(clippy::cast_precision_loss, reason = "seconds of the epoch in a double")]
fn epoch(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

/// `/metrics/resource`.
pub(crate) fn resource(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    let machine = &snapshot.machine;
    let containers: Vec<_> = snapshot
        .pods
        .iter()
        .flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
        .filter(|(_, container)| container.cpu.at.is_some())
        .collect();
    let pods: Vec<&PodUsage> = snapshot.pods.iter().filter(|pod| pod.cpu.at.is_some()).collect();
    let name = "container_cpu_usage_seconds_total";
    page.metric(name, "Cumulative cpu time consumed by the container in core-seconds", "counter");
    for (pod, container) in &containers {
        page.sample(name, &labels(pod, &container.name), seconds(container.cpu.total_nanos));
    }
    let name = "container_memory_working_set_bytes";
    page.metric(name, "Current working set of the container in bytes", "gauge");
    for (pod, container) in &containers {
        page.sample(name, &labels(pod, &container.name), container.memory.working_set);
    }
    let name = "container_swap_usage_bytes";
    page.metric(name, "Current amount of the container swap usage in bytes", "gauge");
    for (pod, container) in &containers {
        page.sample(name, &labels(pod, &container.name), container.memory.swap);
    }
    let name = "container_start_time_seconds";
    page.metric(name, "Start time of the container since unix epoch in seconds", "gauge");
    for (pod, container) in &containers {
        if let Some(started) = container.started {
            page.sample(name, &labels(pod, &container.name), epoch(started));
        }
    }
    let of_pod = |pod: &PodUsage| [("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    let name = "pod_cpu_usage_seconds_total";
    page.metric(name, "Cumulative cpu time consumed by the pod in core-seconds", "counter");
    for pod in &pods {
        let labels = of_pod(pod);
        page.sample(name, &labels.each_ref().map(|(k, v)| (*k, v.as_str())), seconds(pod.cpu.total_nanos));
    }
    let name = "pod_memory_working_set_bytes";
    page.metric(name, "Current working set of the pod in bytes", "gauge");
    for pod in &pods {
        let labels = of_pod(pod);
        page.sample(name, &labels.each_ref().map(|(k, v)| (*k, v.as_str())), pod.memory.working_set);
    }
    let name = "node_cpu_usage_seconds_total";
    page.metric(name, "Cumulative cpu time consumed by the node in core-seconds", "counter");
    page.sample(name, &[], seconds(machine.cpu.total_nanos));
    let name = "node_memory_working_set_bytes";
    page.metric(name, "Current working set of the node in bytes", "gauge");
    page.sample(name, &[], machine.memory.working_set);
    let name = "resource_scrape_error";
    page.metric(name, "1 if there was an error while getting container metrics, 0 otherwise", "gauge");
    page.sample(name, &[], 0);
    page.0
}

fn labels<'a>(pod: &'a PodUsage, container: &'a str) -> [(&'static str, &'a str); 3] {
    [("container", container), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

/// `/metrics/cadvisor`.
pub(crate) fn cadvisor(snapshot: &Snapshot, cpus: usize) -> String {
    type Read = fn(&super::ContainerUsage) -> f64;
    #[allow(clippy::cast_precision_loss, reason = "bytes in a double, as everywhere in Prometheus")]
    let metrics: [(&str, &str, &str, Read); 9] = [
        ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "counter", |c| {
            seconds(c.cpu.total_nanos)
        }),
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            "gauge",
            |c| c.memory.usage as f64,
        ),
        ("container_memory_working_set_bytes", "Current working set in bytes.", "gauge", |c| {
            c.memory.working_set as f64
        }),
        ("container_memory_rss", "Size of RSS in bytes.", "gauge", |c| c.memory.rss as f64),
        ("container_memory_swap", "Container swap usage in bytes.", "gauge", |c| c.memory.swap as f64),
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            "gauge",
            |c| c.rootfs.bytes as f64,
        ),
        (
            "container_fs_inodes_total",
            "Number of inodes that the container's writable layer takes.",
            "gauge",
            |c| c.rootfs.inodes as f64,
        ),
        ("container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge", |c| {
            c.memory.limit.unwrap_or(0) as f64
        }),
        (
            "container_start_time_seconds",
            "Start time of the container since unix epoch in seconds.",
            "gauge",
            |c| c.started.map_or(0.0, epoch),
        ),
    ];
    let mut page = Page::default();
    for (name, help, kind, read) in metrics {
        page.metric(name, help, kind);
        for pod in &snapshot.pods {
            for container in pod.containers.iter().filter(|container| container.cpu.at.is_some()) {
                let labels = [
                    ("container", container.name.as_str()),
                    ("id", container.id.as_str()),
                    ("image", container.image.as_str()),
                    ("name", container.id.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                page.sample(name, &labels, read(container));
            }
        }
    }
    type Count = fn(&super::Interface) -> u64;
    let network: [(&str, &str, Count); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |i| i.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |i| i.tx_errors,
        ),
    ];
    for (name, help, read) in network {
        page.metric(name, help, "counter");
        for pod in &snapshot.pods {
            for interface in &pod.network {
                let labels = [
                    ("interface", interface.name.as_str()),
                    ("namespace", pod.namespace.as_str()),
                    ("pod", pod.name.as_str()),
                ];
                page.sample(name, &labels, read(interface));
            }
        }
    }
    page.metric("container_processes", "Number of processes running inside the pod.", "gauge");
    for pod in &snapshot.pods {
        if let Some(processes) = pod.processes {
            page.sample(
                "container_processes",
                &[("namespace", &pod.namespace), ("pod", &pod.name)],
                processes,
            );
        }
    }
    page.metric("machine_cpu_cores", "Number of logical CPU cores.", "gauge");
    page.sample("machine_cpu_cores", &[], cpus);
    page.metric("machine_memory_bytes", "Amount of memory installed on the machine.", "gauge");
    page.sample("machine_memory_bytes", &[], snapshot.machine.memory_capacity);
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_escaped_and_those_without_labels_have_no_braces() {
        let mut page = Page::default();
        page.sample("a", &[], 1);
        page.sample("b", &[("x", "q\"\\"), ("y", "z")], 0.5);
        assert_eq!(page.0, "a 1\nb{x=\"q\\\"\\\\\",y=\"z\"} 0.5\n");
    }
}

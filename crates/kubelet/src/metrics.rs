//! What the kubelet counts, under upstream's metric names, in one registry that every part reaches through
//! [`NodeContext`](crate::context::NodeContext).
//!
//! Who adds a metric adds a field to the struct of its part below ([`pods`], [`containers`], [`probes`],
//! [`images`], [`node`]) and registers it there; nothing else has to be touched. A counter is registered
//! without its `_total`: the encoder appends it.

mod containers;
mod images;
mod node;
mod operations;
mod pods;
mod probes;
mod render;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub(crate) use containers::ContainerMetrics;
pub(crate) use images::ImageMetrics;
pub(crate) use node::NodeMetrics;
pub(crate) use operations::Operations;
pub(crate) use pods::PodMetrics;
pub(crate) use probes::ProbeMetrics;
pub(crate) use render::CONTENT_TYPE;

/// Labels of a metric, in upstream's order.
pub(crate) type Labels<const N: usize> = [(&'static str, String); N];
/// A counter for each combination of labels.
pub(crate) type Counters<const N: usize> = Family<Labels<N>, Counter>;
/// A gauge for each combination of labels.
pub(crate) type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
/// A histogram for each combination of labels.
pub(crate) type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// All metrics of one kubelet.
pub(crate) struct Metrics {
    /// What `/metrics` shows.
    registry: Registry,
    /// What `/metrics/probes` shows: one series per container and probe, too many for the main page.
    probe_registry: Registry,
    /// Pods and their way to Running.
    pub(crate) pods: PodMetrics,
    /// Containers, hooks and the calls to the runtime.
    pub(crate) containers: ContainerMetrics,
    /// Probes and their results.
    pub(crate) probes: ProbeMetrics,
    /// Pulls, and what garbage collection removed.
    pub(crate) images: ImageMetrics,
    /// Pressure, evictions, admission, shutdown.
    pub(crate) node: NodeMetrics,
}

impl Metrics {
    /// Everything at zero. `node_name` is the value of `kubelet_node_name`'s label.
    pub(crate) fn new(node_name: &str) -> Self {
        let (mut registry, mut probe_registry) = (Registry::default(), Registry::default());
        Self {
            pods: PodMetrics::register(&mut registry),
            containers: ContainerMetrics::register(&mut registry),
            probes: ProbeMetrics::register(&mut probe_registry),
            images: ImageMetrics::register(&mut registry),
            node: NodeMetrics::register(&mut registry, node_name),
            registry,
            probe_registry,
        }
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self) -> String {
        render::render(&self.registry)
    }

    /// The text of `/metrics/probes`.
    pub(crate) fn probes_text(&self) -> String {
        render::render(&self.probe_registry)
    }
}

/// Registers a metric and gives it back: what a struct's field is made with.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Upstream's default buckets, in seconds.
pub(crate) fn default_seconds() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// Upstream's buckets for the way of a pod to Running, in seconds; finer below half a second, where ours are.
pub(crate) fn start_seconds() -> Histogram {
    Histogram::new([
        0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0,
        240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
    ])
}

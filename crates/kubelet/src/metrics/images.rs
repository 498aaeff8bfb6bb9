//! Metrics of images: pulls, and what garbage collection removed.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Counters, Histograms, add, start_seconds};

/// See the fields; names are upstream's, those that begin with `sampan_` are ours.
pub(crate) struct ImageMetrics {
    /// `kubelet_image_pull_duration_seconds{image_size_in_bytes}`.
    pub(crate) pull_duration: Histograms<1>,
    /// `kubelet_image_garbage_collected_total{reason}`: images removed because of `space` or `age`.
    pub(crate) collected: Counters<1>,
    /// `sampan_image_pull_failures_total{reason}`: by waiting reason.
    failures: Counters<1>,
    /// `sampan_image_pull_bytes_total`: sizes of pulled images.
    bytes: Counter,
    /// `sampan_image_pull_in_flight`.
    in_flight: Gauge,
    /// `sampan_image_pull_queued`: pulls that wait for a turn.
    queued: Gauge,
}

/// Counts something that goes on, until it is dropped.
pub(crate) struct GoingOn(Gauge);

impl Drop for GoingOn {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ImageMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            pull_duration: add(
                registry,
                "kubelet_image_pull_duration_seconds",
                "Seconds that pulls took, by size of the image",
                Histograms::new_with_constructor(start_seconds),
            ),
            collected: add(
                registry,
                "kubelet_image_garbage_collected",
                "Number of images that garbage collection removed, by reason",
                Counters::default(),
            ),
            failures: add(
                registry,
                "sampan_image_pull_failures",
                "Number of failed attempts to pull an image, by waiting reason",
                Counters::default(),
            ),
            bytes: add(
                registry,
                "sampan_image_pull_bytes",
                "Sizes of the images that were pulled, as the runtime tells them",
                Counter::default(),
            ),
            in_flight: add(registry, "sampan_image_pull_in_flight", "Pulls that run now", Gauge::default()),
            queued: add(registry, "sampan_image_pull_queued", "Pulls that wait for a turn", Gauge::default()),
        }
    }

    /// A pull of an image of `size` bytes took this long.
    pub(crate) fn pulled(&self, size: u64, took: Duration) {
        let label = ("image_size_in_bytes", size_bucket(size).to_owned());
        self.pull_duration.get_or_create(&[label]).observe(took.as_secs_f64());
        self.bytes.inc_by(size);
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, reason: &str) {
        self.failures.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// An image was removed for `space` or `age`.
    pub(crate) fn removed(&self, reason: &str) {
        self.collected.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// A pull waits for its turn.
    pub(crate) fn waiting(&self) -> GoingOn {
        going_on(&self.queued)
    }

    /// A pull runs.
    pub(crate) fn pulling(&self) -> GoingOn {
        going_on(&self.in_flight)
    }
}

fn going_on(gauge: &Gauge) -> GoingOn {
    gauge.inc();
    GoingOn(gauge.clone())
}

/// Upstream's label values.
fn size_bucket(bytes: u64) -> &'static str {
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    match bytes {
        0 => "N/A",
        _ if bytes < 10 * MB => "0-10MB",
        _ if bytes < 100 * MB => "10MB-100MB",
        _ if bytes < 500 * MB => "100MB-500MB",
        _ if bytes < GB => "500MB-1GB",
        _ if bytes < 5 * GB => "1GB-5GB",
        _ if bytes < 10 * GB => "5GB-10GB",
        _ if bytes < 20 * GB => "10GB-20GB",
        _ if bytes < 30 * GB => "20GB-30GB",
        _ if bytes < 40 * GB => "30GB-40GB",
        _ if bytes < 60 * GB => "40GB-60GB",
        _ if bytes < 100 * GB => "60GB-100GB",
        _ => "GT100GB",
    }
}

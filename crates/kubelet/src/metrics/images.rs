//! Metrics of images: pulls, and what garbage collection removed.

use prometheus_client::registry::Registry;

use super::{Counters, Histograms, start_seconds};

/// See the fields; names are upstream's.
pub(crate) struct ImageMetrics {
    /// `kubelet_image_pull_duration_seconds{image_size_in_bytes}`.
    pub(crate) pull_duration: Histograms<1>,
    /// `kubelet_image_garbage_collected_total{reason}`: images removed because of `space` or `age`.
    pub(crate) collected: Counters<1>,
}

impl ImageMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            pull_duration: Histograms::new_with_constructor(start_seconds),
            collected: Counters::default(),
        };
        registry.register(
            "kubelet_image_pull_duration_seconds",
            "Seconds that pulls took, by size of the image",
            metrics.pull_duration.clone(),
        );
        registry.register(
            "kubelet_image_garbage_collected",
            "Number of images that garbage collection removed, by reason",
            metrics.collected.clone(),
        );
        metrics
    }
}

//! The classic Prometheus text format, which every scraper reads and in which a counter's comments carry its
//! whole name: what the encoder writes in the OpenMetrics form, brought over.

use std::collections::HashSet;

use prometheus_client::registry::Registry;

/// The content type of what [`render`] gives.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters that upstream names without `_total`: the encoder appends it to every counter.
const WITHOUT_TOTAL: [&str; 1] = ["kubelet_evictions"];

/// The metrics of `registry` as text.
pub(crate) fn render(registry: &Registry) -> String {
    let mut open = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut open, registry) {
        tracing::warn!(%error, "metrics not encoded");
    }
    classic(&open)
}

fn classic(open: &str) -> String {
    let counters: HashSet<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .filter(|name| !WITHOUT_TOTAL.contains(name))
        .collect();
    let mut text = String::with_capacity(open.len() + 256);
    for line in open.lines().filter(|line| *line != "# EOF") {
        let comment = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let changed = match comment {
            Some(comment) => comment.split_once(' ').and_then(|(name, rest)| {
                counters.contains(name).then(|| format!("{}{name}_total {rest}", &line[..7]))
            }),
            None => WITHOUT_TOTAL.iter().find_map(|name| {
                let rest = line.strip_prefix(name)?.strip_prefix("_total")?;
                Some(format!("{name}{rest}"))
            }),
        };
        text.push_str(changed.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn counters_carry_their_whole_name_in_the_comments_too() {
        let metrics = Metrics::new("n1");
        metrics.containers.started(crate::pod_ref::ContainerKind::Init);
        let text = metrics.text();
        assert!(text.contains("# TYPE kubelet_started_containers_total counter\n"), "{text}");
        assert!(
            text.contains("kubelet_started_containers_total{container_type=\"init_container\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("kubelet_node_name{node=\"n1\"} 1\n"), "{text}");
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn evictions_are_a_counter_under_upstreams_name() {
        let metrics = Metrics::new("n1");
        metrics.node.evictions.get_or_create(&[("eviction_signal", "memory.available".to_owned())]).inc();
        let text = metrics.text();
        assert!(text.contains("# TYPE kubelet_evictions counter\n"), "{text}");
        assert!(text.contains("\nkubelet_evictions{eviction_signal=\"memory.available\"} 1\n"), "{text}");
        assert!(!text.contains("kubelet_evictions_total"), "{text}");
    }

    #[test]
    fn hook_17_a_failed_post_start_hook_is_a_failed_start() {
        let metrics = Metrics::new("n1");
        metrics.containers.start_failed(crate::pod_ref::ContainerKind::Regular, "PostStartHookError");
        let text = metrics.text();
        let series = "kubelet_started_containers_errors_total{container_type=\"container\",code=\"PostStartHookError\"} 1\n";
        assert!(text.contains(series), "{text}");
    }
}

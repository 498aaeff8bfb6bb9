//! The classic Prometheus text format, which every scraper reads and in which a counter's comments carry its
//! whole name: what the encoder writes in the OpenMetrics form, brought over.

use std::collections::HashSet;

use prometheus_client::registry::Registry;

/// The content type of what [`render`] gives.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of `registry` as text.
pub(crate) fn render(registry: &Registry) -> String {
    let mut open = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut open, registry) {
        tracing::warn!(%error, "metrics not encoded");
    }
    classic(&open)
}

fn classic(open: &str) -> String {
    let counters: HashSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len() + 256);
    for line in open.lines().filter(|line| *line != "# EOF") {
        let comment = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let whole = comment.and_then(|rest| {
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(name).then(|| format!("{}{name}_total {rest}", &line[..7]))
        });
        text.push_str(whole.as_deref().unwrap_or(line));
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
}

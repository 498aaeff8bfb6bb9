//! A pod's resolver configuration (ENV-16, ENV-17).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::v1;

use crate::pod_ref;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2_048;

/// A resolver configuration: the three lists of a `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, `name` or `name:value`.
    pub options: Vec<String>,
}

impl From<DnsConfig> for v1::DnsConfig {
    fn from(config: DnsConfig) -> Self {
        Self { servers: config.servers, searches: config.searches, options: config.options }
    }
}

/// What the node knows about names.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    /// The node's own resolver configuration.
    pub resolv_conf: DnsConfig,
    /// The cluster's name servers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain; empty for none.
    pub cluster_domain: String,
}

/// A pod's configuration and the warnings that go with it: (reason, message) of events.
#[derive(Debug, Default)]
pub struct PodDns {
    /// What the sandbox gets.
    pub config: DnsConfig,
    /// Warning events.
    pub warnings: Vec<(&'static str, String)>,
}

/// Reads a `resolv.conf`.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // The last of several lines counts.
            Some("search") => {
                config.searches = words
                    .map(|word| if word == "." { word } else { word.trim_end_matches('.') }.to_owned())
                    .collect();
            }
            Some("domain") if config.searches.is_empty() => {
                config.searches.extend(words.next().map(str::to_owned))
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// Where systemd-resolved writes the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The node's resolver configuration for its pods: the file at `path`. When all its servers are on the node's loopback
/// (a local cache such as systemd-resolved), which a pod's is not, the list of those behind it, if there is one.
#[must_use]
pub fn node_resolv_conf(path: &std::path::Path) -> DnsConfig {
    behind_loopback(path, std::path::Path::new(RESOLVED))
}

fn behind_loopback(path: &std::path::Path, behind: &std::path::Path) -> DnsConfig {
    let read = |path| std::fs::read_to_string(path).map(|text| parse_resolv_conf(&text));
    let config = read(path).unwrap_or_default();
    if config.is_reachable_from_pods() {
        return config;
    }
    read(behind).ok().filter(DnsConfig::is_reachable_from_pods).unwrap_or(config)
}

impl DnsConfig {
    /// Whether it names no servers or one that is not on a loopback.
    #[must_use]
    pub fn is_reachable_from_pods(&self) -> bool {
        let on_loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.servers.is_empty() || !self.servers.iter().all(on_loopback)
    }
}

/// The configuration of `pod`.
#[must_use]
pub fn pod_dns(pod: &Pod, node: &NodeDns) -> PodDns {
    let spec = pod_ref::spec(pod);
    let mut dns = PodDns::default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let wants_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod_ref::is_host_network(pod),
        _ => false,
    };
    if policy == "None" {
        // Only what `dnsConfig` says, below.
    } else if wants_cluster && !node.cluster_dns.is_empty() {
        dns.config.servers = node.cluster_dns.iter().map(IpAddr::to_string).collect();
        dns.config.searches = cluster_searches(pod_ref::namespace(pod), &node.cluster_domain);
        append_new(&mut dns.config.searches, &node.resolv_conf.searches);
        dns.config.options = vec!["ndots:5".to_owned()];
    } else {
        if wants_cluster {
            dns.warnings.push((
                "MissingClusterDNS",
                format!(
                    "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. \
                     Falling back to \"Default\" policy.",
                    pod_ref::full_name(pod)
                ),
            ));
        }
        dns.config = node.resolv_conf.clone();
    }
    if let Some(extra) = &spec.dns_config {
        append_new(&mut dns.config.servers, extra.nameservers.as_deref().unwrap_or_default());
        append_new(&mut dns.config.searches, extra.searches.as_deref().unwrap_or_default());
        let options: Vec<(String, Option<String>)> = extra
            .options
            .iter()
            .flatten()
            .map(|option| (option.name.clone().unwrap_or_default(), option.value.clone()))
            .collect();
        merge_options(&mut dns.config.options, &options);
    }
    apply_limits(&mut dns);
    dns
}

fn cluster_searches(namespace: &str, domain: &str) -> Vec<String> {
    if domain.is_empty() {
        return Vec::new();
    }
    vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()]
}

fn append_new(list: &mut Vec<String>, more: &[String]) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

/// Options of the same name are replaced by the pod's.
fn merge_options(options: &mut Vec<String>, more: &[(String, Option<String>)]) {
    for (name, value) in more.iter().filter(|(name, _)| !name.is_empty()) {
        let text = match value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        };
        match options.iter_mut().find(|option| option.split(':').next() == Some(name)) {
            Some(existing) => *existing = text,
            None => options.push(text),
        }
    }
}

fn apply_limits(dns: &mut PodDns) {
    if dns.config.servers.len() > MAX_NAMESERVERS {
        dns.config.servers.truncate(MAX_NAMESERVERS);
        dns.warnings.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                dns.config.servers.join(" ")
            ),
        ));
    }
    let searches = &mut dns.config.searches;
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    while searches.join(" ").len() > MAX_SEARCH_CHARS {
        searches.pop();
    }
    if searches.len() < before {
        dns.warnings.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                searches.join(" ")
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}),
        )
        .unwrap()
    }

    fn node() -> NodeDns {
        NodeDns {
            resolv_conf: parse_resolv_conf("# c\nnameserver 9.9.9.9\nsearch corp. svc.d\noptions rotate\n"),
            cluster_dns: vec!["10.0.0.10".parse().unwrap()],
            cluster_domain: "d".into(),
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn env_16_a_pod_is_not_sent_to_its_own_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let stub = write("stub", "nameserver 127.0.0.53\nsearch corp\n");
        let behind = write("behind", "nameserver 192.0.2.53\nsearch corp\n");
        let servers =
            |path: &std::path::Path, behind: &std::path::Path| behind_loopback(path, behind).servers;
        assert_eq!(servers(&stub, &behind), ["192.0.2.53"]);
        assert_eq!(servers(&stub, &dir.path().join("none")), ["127.0.0.53"]);
        assert_eq!(servers(&stub, &stub), ["127.0.0.53"]);
        let mixed = write("mixed", "nameserver 127.0.0.1\nnameserver 9.9.9.9\n");
        assert_eq!(servers(&mixed, &behind), ["127.0.0.1", "9.9.9.9"]);
        assert_eq!(servers(&dir.path().join("none"), &behind), [""; 0]);
    }

    #[test]
    fn env_16_policies() {
        let cluster = pod_dns(&pod(json!({})), &node()).config;
        assert_eq!(cluster.servers, strings(&["10.0.0.10"]));
        assert_eq!(cluster.searches, strings(&["ns.svc.d", "svc.d", "d", "corp"]));
        assert_eq!(cluster.options, strings(&["ndots:5"]));
        let host = pod_dns(&pod(json!({"hostNetwork": true})), &node()).config;
        assert_eq!(host, node().resolv_conf);
        let with_host_net =
            pod_dns(&pod(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})), &node())
                .config;
        assert_eq!(with_host_net.servers, strings(&["10.0.0.10"]));
        assert_eq!(
            pod_dns(&pod(json!({"dnsPolicy": "Default"})), &node()).config.servers,
            strings(&["9.9.9.9"])
        );
        assert_eq!(pod_dns(&pod(json!({"dnsPolicy": "None"})), &node()).config, DnsConfig::default());
    }

    #[test]
    fn env_17_dns_config_is_merged_and_cut() {
        let spec = json!({"dnsConfig": {"nameservers": ["1.1.1.1", "10.0.0.10", "2.2.2.2", "3.3.3.3"],
            "searches": ["d", "extra"], "options": [{"name": "ndots", "value": "2"}, {"name": "debug"}]}});
        let dns = pod_dns(&pod(spec), &node());
        assert_eq!(dns.config.servers, strings(&["10.0.0.10", "1.1.1.1", "2.2.2.2"]));
        assert_eq!(dns.config.searches, strings(&["ns.svc.d", "svc.d", "d", "corp", "extra"]));
        assert_eq!(dns.config.options, strings(&["ndots:2", "debug"]));
        assert_eq!(dns.warnings, [(
            "DNSConfigForming",
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.0.0.10 1.1.1.1 2.2.2.2".to_owned()
        )]);
        let none = NodeDns { cluster_dns: Vec::new(), ..node() };
        let fallback = pod_dns(&pod(json!({})), &none);
        assert_eq!(fallback.config, node().resolv_conf);
        assert_eq!(fallback.warnings[0].0, "MissingClusterDNS");
    }
}

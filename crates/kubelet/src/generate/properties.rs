//! What holds for every environment: expansion, the variables of Services, field paths (ENV-18, ENV-19, ENV-30 to ENV-32,
//! ENV-38, ENV-39).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, Service};
use proptest::prelude::*;
use sampan_api::{scheme, validation};
use serde_json::{Value, json};

use super::expansion::expand;
use super::fields::{self, Addresses};
use super::service_env;

/// A part of a text, and what it expands to where `A` is `$(B)` and nothing else is known.
fn part() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        "[^$()]{0,6}".prop_map(|text| (text.clone(), text)),
        Just(("$(A)".to_owned(), "$(B)".to_owned())),
        Just(("$(B)".to_owned(), "$(B)".to_owned())),
        Just(("$$(A)".to_owned(), "$(A)".to_owned())),
        Just(("$$".to_owned(), "$".to_owned())),
        Just(("${A}".to_owned(), "${A}".to_owned())),
    ]
}

fn lookup(name: &str) -> Option<String> {
    (name == "A").then(|| "$(B)".to_owned())
}

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// A Service with an address and ports of different numbers and names.
fn service() -> impl Strategy<Value = Value> {
    let ports = prop::collection::btree_map(1..65_536_i32, ("[a-z]{1,8}(-[a-z]{1,4})?", 0..3_usize), 1..5);
    ("[a-z]([-a-z0-9]{0,10}[a-z0-9])?", any::<[u8; 4]>(), ports).prop_map(|(name, ip, ports)| {
        let ip = ip.map(|byte| byte.to_string()).join(".");
        let ports: Vec<Value> = ports
            .into_iter()
            .map(|(port, (name, protocol))| {
                json!({"name": format!("{name}{port}"), "port": port, "protocol": PROTOCOLS[protocol]})
            })
            .collect();
        json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIP": ip, "ports": ports}})
    })
}

/// Field paths as people write them, right and wrong.
fn field_path() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "metadata",
        "spec",
        "status",
        "name",
        "namespace",
        "uid",
        "nodeName",
        "serviceAccountName",
        "hostIP",
        "hostIPs",
        "podIP",
        "podIPs",
        "labels",
        "annotations",
        "labels['a']",
        "annotations['a/b']",
        "labels['",
        "x",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 1..4).prop_map(|parts| parts.join("."))
}

proptest! {
    #[test]
    fn env_38_39_a_text_expands_part_by_part(parts in prop::collection::vec(part(), 0..8)) {
        let (text, expected): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        prop_assert_eq!(expand(&text.concat(), lookup), expected.concat());
    }

    #[test]
    fn env_39_any_text_is_survived_and_an_escaped_one_comes_back(text in "(\\PC|\\$|\\(|\\)){0,40}") {
        let _expanded = expand(&text, lookup);
        prop_assert_eq!(expand(&text.replace('$', "$$"), lookup), text);
    }

    #[test]
    fn env_30_31_32_every_port_of_a_service_has_its_variables(service in service()) {
        let typed: Service = serde_json::from_value(service.clone()).unwrap();
        let variables = service_env::variables(&[&typed]);
        let ports = service["spec"]["ports"].as_array().unwrap();
        let ip = service["spec"]["clusterIP"].as_str().unwrap();
        let prefix = service["metadata"]["name"].as_str().unwrap().replace('-', "_").to_uppercase();
        prop_assert_eq!(variables.len(), 3 + 5 * ports.len());
        let shell = |name: &str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase() || byte.is_ascii_digit());
        prop_assert!(variables.keys().all(|name| shell(name) && name.starts_with(&prefix)));
        for port in ports {
            let protocol = port["protocol"].as_str().unwrap();
            let name = format!("{prefix}_PORT_{}_{protocol}", port["port"]);
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port["port"]);
            prop_assert_eq!(&variables[&name], &url);
            prop_assert_eq!(&variables[&format!("{name}_ADDR")], ip);
        }
    }

    /// What the API lets pass has a value here, and what it refuses has none.
    #[test]
    fn env_18_19_a_field_path_is_refused_by_the_api_or_has_a_value(path in field_path()) {
        let from = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
        let mut pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "X", "valueFrom": from}]}]}});
        let pods = scheme::find("", "v1", "pods").unwrap();
        sampan_api::defaulting::apply_defaults(pods, &mut pod);
        let accepted = validation::validate_create(pods, &pod).is_empty();
        let typed: Pod = serde_json::from_value(pod).unwrap();
        let selector = ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.clone() };
        let value = fields::field(&typed, &selector, &Addresses::default());
        prop_assert!(!accepted || value.is_ok(), "{}: {:?}", path, value);
        // Whole maps are for volumes; which keys a map may have is the API's alone.
        let whole = ["metadata.labels", "metadata.annotations"].contains(&path.as_str());
        prop_assert!(accepted || value.is_err() || whole || path.contains("['"), "{}: {:?}", path, value);
    }
}

/// Upstream's table for a Service of two ports, all of it.
#[test]
fn env_30_31_32_the_table_of_a_service() {
    let service = json!({"metadata": {"name": "redis-primary", "namespace": "ns"}, "spec": {"clusterIP": "10.0.0.11",
        "ports": [{"name": "db", "port": 6379, "protocol": "TCP"}, {"name": "gossip-1", "port": 7946, "protocol": "UDP"}]}});
    let typed: Service = serde_json::from_value(service).unwrap();
    let variables = service_env::variables(&[&typed]);
    let lines: BTreeSet<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = "\
        REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379\n\
        REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379\n\
        REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11\n\
        REDIS_PRIMARY_PORT_6379_TCP_PORT=6379\n\
        REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp\n\
        REDIS_PRIMARY_PORT_7946_UDP=udp://10.0.0.11:7946\n\
        REDIS_PRIMARY_PORT_7946_UDP_ADDR=10.0.0.11\n\
        REDIS_PRIMARY_PORT_7946_UDP_PORT=7946\n\
        REDIS_PRIMARY_PORT_7946_UDP_PROTO=udp\n\
        REDIS_PRIMARY_SERVICE_HOST=10.0.0.11\n\
        REDIS_PRIMARY_SERVICE_PORT=6379\n\
        REDIS_PRIMARY_SERVICE_PORT_DB=6379\n\
        REDIS_PRIMARY_SERVICE_PORT_GOSSIP_1=7946";
    assert_eq!(lines, expected.lines().map(str::to_owned).collect());
}

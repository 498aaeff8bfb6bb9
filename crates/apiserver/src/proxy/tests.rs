#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::query::Query;

fn query(text: &str) -> Query {
    Query::parse(Some(text))
}

#[test]
fn the_container_is_found_in_upstreams_words() {
    let two = json!({"metadata": {"name": "x"}, "spec": {"initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "b"}]}});
    let message = |asked| pod::container(&two, asked).unwrap_err().message;
    assert_eq!(message(None), "a container name must be specified for pod x, choose one of: [i a b]");
    assert_eq!(message(Some("c")), "container c is not valid for pod x");
    assert_eq!(pod::container(&two, Some("i")).unwrap(), "i");
    let one = json!({"metadata": {"name": "x"}, "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}});
    assert_eq!(pod::container(&one, None).unwrap(), "a");
}

#[test]
fn exec_options_become_the_kubelets_parameters() {
    let asked = query(
        "command=sh&command=-c&command=echo+%22a%26b%22&container=c&stdin=true&stdout=true&stderr=false&tty=true",
    );
    assert_eq!(
        stream::parameters(&asked, "exec").unwrap(),
        "command=sh&command=-c&command=echo+%22a%26b%22&input=1&output=1&tty=1"
    );
    assert_eq!(stream::parameters(&query("ports=80&ports=8080"), "portForward").unwrap(), "port=80%2C8080");
    assert_eq!(stream::parameters(&query(""), "portForward").unwrap(), "");
    assert!(stream::parameters(&query("ports=99999"), "portForward").is_err());
}

#[test]
fn log_options_are_checked() {
    assert_eq!(
        log::parameters(
            &query("follow=true&tailLines=5&sinceTime=2026-11-22T10%3A00%3A00Z&timestamps=false"),
            "x"
        )
        .unwrap(),
        "follow=true&tailLines=5&sinceTime=2026-11-22T10%3A00%3A00Z"
    );
    let message = |text: &str| log::parameters(&query(text), "x").unwrap_err().message;
    assert_eq!(
        message("tailLines=-1"),
        "PodLogOptions \"x\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    );
    assert!(message("sinceSeconds=0").contains("must be greater than 0"));
    assert!(message("limitBytes=x").contains("invalid syntax"));
    assert!(message("sinceSeconds=5&sinceTime=2026-11-22T10:00:00Z").contains("at most one of"));
}

#[test]
fn what_follows_proxy_is_found_in_any_path() {
    let rest = |path: &'static str| {
        let info = crate::RequestInfo::new(&http::Method::GET, path, &Query::default());
        pass::rest_of_path(path, &info.parts).map(str::to_owned)
    };
    assert_eq!(rest("/api/v1/nodes/proxy/proxy/metrics").as_deref(), Some("/metrics"));
    assert_eq!(
        rest("/api/v1/namespaces/proxy/pods/p:80/proxy/a%2Fb/proxy/").as_deref(),
        Some("/a%2Fb/proxy/")
    );
    assert_eq!(rest("/api/v1/namespaces/a/services/s/proxy/").as_deref(), Some("/"));
    assert_eq!(rest("/api/v1/namespaces/a/services/s/proxy"), None);
}

#[test]
fn targets_are_split_and_addresses_bounded() {
    assert_eq!(split_scheme_name_port("https:web:443"), Some(("https", "web", "443")));
    assert_eq!(split_scheme_name_port("web"), Some(("", "web", "")));
    assert_eq!(split_scheme_name_port("ftp:web:1"), None);
    assert_eq!(split_scheme_name_port("a:b:c:d"), None);
    assert!(pod::is_global_unicast(&"10.0.0.1".parse().unwrap()));
    for refused in ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "224.0.0.1", "fe80::1"] {
        assert!(!pod::is_global_unicast(&refused.parse().unwrap()), "{refused}");
    }
    assert_eq!(node::authority("fd00::1", "80"), "[fd00::1]:80");
    let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}]}});
    assert_eq!(node::address(&node).as_deref(), Some("192.0.2.1"));
}

#[test]
fn a_services_endpoint_is_ready_and_on_the_named_port() {
    let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]}});
    assert_eq!(service::port_name(&service, "443").as_deref(), Some("tls"));
    assert_eq!(service::port_name(&service, "web").as_deref(), Some("web"));
    assert_eq!(service::port_name(&service, ""), None);
    let slice = json!({"ports": [{"name": "web", "port": 8080}], "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": true}}]});
    assert_eq!(service::ready(&slice, "web"), [("10.0.0.2".to_owned(), 8080)]);
    assert!(service::ready(&slice, "tls").is_empty());
}

#[test]
fn a_kubelets_refusal_is_said_in_the_apis_words() {
    let missing = log::kubelet_error(404, "x", "");
    assert_eq!(missing.message, "the server could not find the requested resource ( pods/log x)");
    assert_eq!((missing.code, missing.reason.as_str()), (404, "NotFound"));
    assert_eq!(log::kubelet_error(400, "x", "container \"c\" in pod \"x\" is waiting to start\n").code, 400);
    assert_eq!(log::kubelet_error(500, "x", "boom").message, "Internal error occurred: boom");
}

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn kubectl_gets_the_aggregated_document_it_prefers() {
    let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                   application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    assert_eq!(aggregated::wanted(kubectl), Some("v2"));
    let older = "application/json;v=v2beta1;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList,application/json";
    assert_eq!(aggregated::wanted(older), Some("v2beta1"));
    assert_eq!(aggregated::wanted("application/json"), None);
    assert_eq!(aggregated::wanted("*/*"), None);
    assert_eq!(aggregated::wanted(""), None);
}

#[test]
fn a_subresource_of_another_group_says_so() {
    let apps = resource_list("apps", "v1").unwrap();
    let entry = |name: &str| {
        apps["resources"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
    };
    assert_eq!(entry("deployments/scale")["group"], "autoscaling");
    assert!(entry("deployments/status")["group"].is_null());
    assert_eq!(entry("deployments")["shortNames"], json!(["deploy"]));
    assert_eq!(apps["groupVersion"], "apps/v1");
    assert!(resource_list("apps", "v9").is_none());
}

#[test]
fn the_aggregated_document_names_scope_and_kinds() {
    let core = aggregated::document(true, "v2");
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|entry| entry["resource"] == "pods").unwrap();
    assert_eq!(pods["scope"], "Namespaced");
    assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert!(pods["subresources"].as_array().unwrap().iter().any(|sub| sub["subresource"] == "exec"));
    assert!(aggregated::document(false, "v2")["items"].as_array().unwrap().len() > 5);
}

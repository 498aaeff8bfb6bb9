//! Discovery: which groups, versions and resources there are, one by one and (aggregated) in one document.

mod aggregated;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Request;
use http::header::ACCEPT;
use sampan_api::scheme::{self, Resource};
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::respond::{self, Body, Response};
use crate::{ApiServer, metrics_api, reviews};

const JSON: &str = "application/json";

/// Answers `/api...` and `/apis...` as far as they are no resources.
pub async fn serve(server: Arc<ApiServer>, context: RequestContext, _request: Request<Body>) -> Response {
    if !matches!(context.info.verb.as_str(), "get" | "head") {
        return respond::status(&sampan_api::Status::method_not_allowed());
    }
    let path = context.info.path.clone();
    let pieces: Vec<&str> = path.split('/').filter(|piece| !piece.is_empty()).collect();
    if matches!(pieces.as_slice(), ["api"] | ["apis"]) {
        let accept = context.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if let Some(version) = aggregated::wanted(accept) {
            return aggregated::answer(&context, pieces[0] == "api", version);
        }
    }
    let document = match pieces.as_slice() {
        ["api"] => Some(core_versions(&server)),
        ["apis"] => Some(group_list()),
        ["api", "v1"] => resource_list("", "v1"),
        ["apis", group] => group_document(group),
        ["apis", group, version] => resource_list(group, version),
        _ => None,
    };
    match document {
        Some(document) => reviews::answer(200, JSON, document.to_string()),
        None => respond::not_found_path(),
    }
}

/// Answers `/`: the paths that there are.
pub async fn serve_root(
    _server: Arc<ApiServer>,
    _context: RequestContext,
    _request: Request<Body>,
) -> Response {
    let mut paths: BTreeSet<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/healthz/etcd",
        "/healthz/log",
        "/healthz/ping",
        "/livez",
        "/livez/etcd",
        "/livez/log",
        "/livez/ping",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/readyz/etcd",
        "/readyz/log",
        "/readyz/ping",
        "/readyz/shutdown",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for (group, versions) in groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.insert(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    reviews::answer(200, JSON, format!("{:#}", json!({"paths": paths})))
}

fn core_versions(server: &ApiServer) -> Value {
    let (host, port) = server.config.advertise;
    let address = std::net::SocketAddr::new(host, port).to_string();
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "preferredVersion": all.first(), "versions": all})
}

fn group_list() -> Value {
    let list: Vec<Value> = groups()
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| group(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

fn group_document(name: &str) -> Option<Value> {
    let groups = groups();
    let (name, versions) = groups.iter().find(|(have, _)| *have == name && !name.is_empty())?;
    let mut document = group(name, versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

/// All groups with their versions: those of the scheme, then what is answered without being stored.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups = scheme::groups();
    groups.push((metrics_api::GROUP, vec!["v1beta1"]));
    groups
}

/// The resources of a group and version, in the order in which discovery lists them.
fn resources_of(group: &str, version: &str) -> Vec<&'static Resource> {
    let all = scheme::resources().iter().chain(&metrics_api::RESOURCES);
    let mut list: Vec<&Resource> = all.filter(|r| r.group == group && r.version == version).collect();
    list.sort_by_key(|resource| resource.plural);
    list
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut entries = Vec::new();
    for resource in resources_of(group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        for (field, list) in [("shortNames", resource.short_names), ("categories", resource.categories)] {
            if !list.is_empty() {
                entry[field] = json!(list);
            }
        }
        if !resource.storage_version_hash.is_empty() {
            entry["storageVersionHash"] = resource.storage_version_hash.into();
        }
        entries.push(entry);
        let mut subresources: Vec<_> = resource.subresources.iter().collect();
        subresources.sort_by_key(|sub| sub.name);
        for sub in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": sub.kind,
                "verbs": sub.verbs,
            });
            if (sub.group, sub.version) != (group, version) {
                entry["group"] = sub.group.into();
                entry["version"] = sub.version.into();
            }
            entries.push(entry);
        }
    }
    if entries.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut document =
        json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": entries});
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    Some(document)
}

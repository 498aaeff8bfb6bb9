//! Aggregated discovery (apidiscovery.k8s.io): all groups with all their resources in one document.

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use sampan_api::scheme;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::resources_of;
use crate::context::RequestContext;
use crate::respond::{Body, Response};

/// Which version of the aggregated document an Accept header asks for first, if it does before plain JSON.
pub(super) fn wanted(accept: &str) -> Option<&'static str> {
    for media in accept.split(',') {
        let mut parameters = media.split(';').map(str::trim);
        let kind = parameters.next().unwrap_or_default();
        let parameters: Vec<&str> = parameters.collect();
        if !matches!(kind, "application/json" | "*/*" | "application/*") {
            continue;
        }
        if parameters.contains(&"as=APIGroupDiscoveryList") && parameters.contains(&"g=apidiscovery.k8s.io") {
            if parameters.contains(&"v=v2") {
                return Some("v2");
            }
            if parameters.contains(&"v=v2beta1") {
                return Some("v2beta1");
            }
            continue;
        }
        if !parameters.iter().any(|parameter| parameter.starts_with("as=")) {
            return None;
        }
    }
    None
}

/// Answers with the document of the core group, or of all named groups.
pub(super) fn answer(context: &RequestContext, core: bool, version: &'static str) -> Response {
    let text = document(core, version).to_string();
    let digest = Sha256::digest(&text);
    let etag = format!("\"{}\"", digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let builder = http::Response::builder().header(VARY, "Accept").header(ETAG, &etag);
    let known = context.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|have| have.trim() == etag)) {
        return builder.status(304).body(Body::empty()).unwrap_or_default();
    }
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    builder.status(200).header(CONTENT_TYPE, content_type).body(Body::from(text)).unwrap_or_default()
}

pub(super) fn document(core: bool, version: &str) -> Value {
    let items: Vec<Value> = super::groups()
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let mut metadata = json!({"creationTimestamp": null});
            if !name.is_empty() {
                metadata["name"] = (*name).into();
            }
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = resources_of(name, version).into_iter().map(entry).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn entry(resource: &scheme::Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (field, list) in [("shortNames", resource.short_names), ("categories", resource.categories)] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
    if !resource.subresources.is_empty() {
        let mut subresources: Vec<_> = resource.subresources.iter().collect();
        subresources.sort_by_key(|sub| sub.name);
        let subresources: Vec<Value> = subresources
            .into_iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                    "verbs": sub.verbs,
                })
            })
            .collect();
        entry["subresources"] = subresources.into();
    }
    entry
}

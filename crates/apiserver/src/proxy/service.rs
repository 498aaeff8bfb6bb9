//! `services/NAME/proxy/...`: to one of the Service's ready endpoints.

use std::sync::Arc;

use http::Request;
use rand::seq::IndexedRandom as _;
use sampan_api::{Status, scheme};
use sampan_store::{KeyRange, RangeRequest};
use serde_json::Value;

use super::backend::Backend;
use super::node::authority;
use super::{get, pass, split_scheme_name_port};
use crate::ApiServer;
use crate::context::RequestContext;
use crate::registry::key;
use crate::respond::{self, Body, Response};

/// Passes a request on to a Service over HTTP.
pub async fn service_proxy(
    server: Arc<ApiServer>,
    context: RequestContext,
    request: Request<Body>,
) -> Response {
    match backend(&server, &context).await {
        Ok(backend) => pass::through(&context, backend, request).await,
        Err(status) => respond::status(&status),
    }
}

async fn backend(server: &ApiServer, context: &RequestContext) -> Result<Backend, Status> {
    let (id, namespace) = (&context.info.name, &context.info.namespace);
    let (scheme, name, port) = split_scheme_name_port(id)
        .ok_or_else(|| Status::bad_request(format!("invalid service request {id:?}")))?;
    let service = get(server, "services", namespace, name).await?;
    let port_name = port_name(&service, port).ok_or_else(|| {
        Status::service_unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let slices = slices(server, namespace, name).await?;
    let endpoints: Vec<(String, u64)> = slices.iter().flat_map(|slice| ready(slice, &port_name)).collect();
    let (ip, port) = endpoints
        .choose(&mut rand::rng())
        .cloned()
        .ok_or_else(|| Status::service_unavailable(format!("no endpoints available for service {name:?}")))?;
    let tls = (scheme == "https").then(|| (server.proxy.anybody.clone(), ip.clone()));
    Ok(Backend { authority: authority(&ip, &port.to_string()), tls })
}

/// The name of the Service's port that is meant: by name, by number, or the only one.
pub(super) fn port_name(service: &Value, asked: &str) -> Option<String> {
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    if asked.is_empty() {
        return match ports {
            [only] => Some(name(only)),
            _ => ports.iter().find(|port| name(port).is_empty()).map(name),
        };
    }
    ports
        .iter()
        .find(|port| name(port) == asked || port["port"].as_u64().is_some_and(|n| n.to_string() == asked))
        .map(name)
}

/// Addresses and port numbers of the slice's ready endpoints.
pub(super) fn ready(slice: &Value, port_name: &str) -> Vec<(String, u64)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let port = list(&slice["ports"])
        .iter()
        .find(|port| port["name"].as_str().unwrap_or_default() == port_name)
        .and_then(|port| port["port"].as_u64());
    let Some(port) = port else { return Vec::new() };
    list(&slice["endpoints"])
        .iter()
        .filter(|endpoint| endpoint["conditions"]["ready"] != false)
        .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(|address| (address.to_owned(), port)))
        .collect()
}

async fn slices(server: &ApiServer, namespace: &str, service: &str) -> Result<Vec<Value>, Status> {
    let Some(resource) = scheme::find("discovery.k8s.io", "v1", "endpointslices") else {
        return Ok(Vec::new());
    };
    let range = KeyRange::prefix(key::namespace_prefix(resource, namespace));
    let request = RangeRequest { range, at: None, limit: 0, count_only: false };
    let found = server.config.store.range(request).await.map_err(Status::internal_error)?;
    let slices = found.kvs.iter().filter_map(|kv| serde_json::from_slice::<Value>(&kv.value).ok());
    Ok(slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service).collect())
}

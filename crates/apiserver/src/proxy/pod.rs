//! A pod as the target of a proxy: its containers' names, its node, and `pods/NAME/proxy/...`.

use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use sampan_api::Status;
use serde_json::Value;

use super::backend::Backend;
use super::node::authority;
use super::{get, pass, split_scheme_name_port};
use crate::ApiServer;
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};

/// The names of all containers: init containers, containers, ephemeral containers.
fn container_names(pod: &Value) -> Vec<&str> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .filter_map(|field| pod["spec"][field].as_array())
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect()
}

/// The container that a request means: the one it names, or the only one.
///
/// # Errors
/// 400 with upstream's text.
pub(super) fn container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = container_names(pod);
    match asked.filter(|asked| !asked.is_empty()) {
        Some(asked) if names.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => match pod["spec"]["containers"].as_array().map(Vec::as_slice) {
            Some([only]) => Ok(only["name"].as_str().unwrap_or_default().to_owned()),
            None | Some([]) => {
                Err(Status::bad_request(format!("a container name must be specified for pod {name}")))
            }
            Some(_) => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            ))),
        },
    }
}

/// The node that the pod is bound to.
pub(super) fn node_name(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

/// Passes a request on to a pod over HTTP.
pub async fn pod_proxy(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    match backend(&server, &context).await {
        Ok(backend) => pass::through(&context, backend, request).await,
        Err(status) => respond::status(&status),
    }
}

async fn backend(server: &ApiServer, context: &RequestContext) -> Result<Backend, Status> {
    let id = &context.info.name;
    let (scheme, name, port) = split_scheme_name_port(id)
        .ok_or_else(|| Status::bad_request(format!("invalid pod request {id:?}")))?;
    let pod = get(server, "pods", &context.info.namespace, name).await?;
    let first_port = || {
        let containers = pod["spec"]["containers"].as_array()?;
        containers.iter().find_map(|container| container["ports"][0]["containerPort"].as_u64())
    };
    let default = if scheme == "https" { "443" } else { "80" };
    let port = match port {
        "" => first_port().map_or_else(|| default.to_owned(), |port| port.to_string()),
        port => port.to_owned(),
    };
    let ip =
        pod["status"]["podIPs"][0]["ip"].as_str().or(pod["status"]["podIP"].as_str()).unwrap_or_default();
    let allowed = ip.parse::<IpAddr>().is_ok_and(|ip| is_global_unicast(&ip));
    if !allowed {
        return Err(Status::bad_request("address not allowed"));
    }
    let tls = (scheme == "https").then(|| (server.proxy.anybody.clone(), ip.to_owned()));
    Ok(Backend { authority: authority(ip, &port), tls })
}

/// Go's `IsGlobalUnicast`: nothing of the machine itself, no group, no link.
pub(super) fn is_global_unicast(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local
}

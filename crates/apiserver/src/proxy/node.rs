//! Where a node's kubelet is, and `nodes/NAME/proxy/...`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Limited};
use sampan_api::Status;
use serde_json::Value;

use super::backend::Backend;
use super::{get, pass, split_scheme_name_port};
use crate::ApiServer;
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};

const KUBELET_PORT: u64 = 10250;
/// The largest answer that is read whole, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How long a kubelet may take for it.
const ANSWER: Duration = Duration::from_secs(10);
/// Addresses before names: a name would have to be resolved, an address is where the kubelet listens.
const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// The kubelet of a node. Its certificate must be the node's (it names the node), so that an address that went to
/// somebody else is noticed.
pub(super) async fn kubelet(server: &ApiServer, node: &str, verified: bool) -> Result<Backend, Status> {
    let object = get(server, "nodes", "", node).await?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let address = address(&object).ok_or_else(|| {
        Status::internal_error(format!(
            "no preferred addresses found; known addresses: {}",
            object["status"]["addresses"]
        ))
    })?;
    let port = port.filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    let config = if verified { &server.proxy.kubelet } else { &server.proxy.unverified_kubelet };
    Ok(Backend {
        authority: authority(&address, &port.to_string()),
        tls: Some((config.clone(), node.to_owned())),
    })
}

/// What a kubelet answers at `path`, which is JSON.
///
/// # Errors
/// 404 without the node, 500 when its kubelet cannot be reached, answers with an error, too much, or no JSON.
pub(crate) async fn kubelet_json(server: &ApiServer, node: &str, path: &str) -> Result<Value, Status> {
    let request = Request::get(path).body(Body::empty()).map_err(Status::internal_error)?;
    let answer = async {
        let response = kubelet(server, node, true).await?.send(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(Status::internal_error)?
            .to_bytes();
        if !status.is_success() {
            return Err(Status::internal_error(format!(
                "the kubelet of {node} answers {path} with {status}"
            )));
        }
        serde_json::from_slice(&body).map_err(Status::internal_error)
    };
    let slow = || Status::internal_error(format!("the kubelet of {node} does not answer {path} in time"));
    tokio::time::timeout(ANSWER, answer).await.map_err(|_| slow())?
}

pub(super) fn address(node: &Value) -> Option<String> {
    let addresses = node["status"]["addresses"].as_array()?;
    ADDRESS_TYPES.iter().find_map(|wanted| {
        let found = addresses.iter().find(|address| address["type"] == *wanted)?;
        found["address"].as_str().filter(|address| !address.is_empty()).map(str::to_owned)
    })
}

/// `10.0.0.1:80`, `[fd00::1]:80`, `name:80`.
pub(super) fn authority(host: &str, port: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// Passes a request on to a kubelet (or, as `https:NAME:PORT`, to another port of the node).
pub async fn node_proxy(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    match backend(&server, &context.info.name).await {
        Ok(backend) => pass::through(&context, backend, request).await,
        Err(status) => respond::status(&status),
    }
}

async fn backend(server: &ApiServer, id: &str) -> Result<Backend, Status> {
    let (scheme, name, port) = split_scheme_name_port(id)
        .ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
    let kubelet = kubelet(server, name, true).await?;
    let own_port = kubelet.authority.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default();
    if port.is_empty() || port == own_port {
        return Ok(kubelet);
    }
    let node = get(server, "nodes", "", name).await?;
    let host = address(&node).unwrap_or_default();
    let tls = (scheme == "https").then(|| (server.proxy.anybody.clone(), name.to_owned()));
    Ok(Backend { authority: authority(&host, port), tls })
}

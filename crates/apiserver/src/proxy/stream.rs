//! `pods/exec`, `pods/attach`, `pods/portforward`: upgraded streams, passed on to the kubelet as they are.

use std::sync::Arc;

use http::{Request, Uri};
use sampan_api::Status;

use super::backend::Backend;
use super::{get, node, pass, pod};
use crate::context::RequestContext;
use crate::query::Query;
use crate::respond::{self, Body, Response};
use crate::{ApiServer, authorization};

/// Runs a command in a container.
pub async fn pod_exec(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    stream(server, context, request, "exec").await
}

/// Attaches to a container's main process.
pub async fn pod_attach(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    stream(server, context, request, "attach").await
}

/// Forwards ports of a pod.
pub async fn pod_portforward(
    server: Arc<ApiServer>,
    context: RequestContext,
    request: Request<Body>,
) -> Response {
    stream(server, context, request, "portForward").await
}

async fn stream(
    server: Arc<ApiServer>,
    context: RequestContext,
    request: Request<Body>,
    what: &str,
) -> Response {
    // A WebSocket's handshake is a GET: who may only read must not run commands by it.
    if let Err(status) = authorization::ensure(&server, &context, "create").await {
        return respond::status(&status);
    }
    let (backend, uri) = match location(&server, &context, what).await {
        Ok(location) => location,
        Err(status) => return respond::status(&status),
    };
    if !pass::is_upgrade(request.headers()) {
        return respond::status(&Status::bad_request("Upgrade request required"));
    }
    pass::upgrade(backend, uri, request).await
}

async fn location(
    server: &ApiServer,
    context: &RequestContext,
    what: &str,
) -> Result<(Backend, Uri), Status> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let pod = get(server, "pods", namespace, name).await?;
    let mut path = format!("/{what}/{namespace}/{name}");
    if what != "portForward" {
        path = format!("{path}/{}", pod::container(&pod, context.query.non_empty("container"))?);
    }
    if what == "exec" && context.query.all("command").next().is_none() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let node = pod::node_name(&pod)
        .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    let backend = node::kubelet(server, node, true).await?;
    let query = parameters(&context.query, what)?;
    let separator = if query.is_empty() { "" } else { "?" };
    let uri = format!("{path}{separator}{query}")
        .parse()
        .map_err(|error| Status::bad_request(format!("{error}")))?;
    Ok((backend, uri))
}

/// The kubelet's parameters: `input`, `output`, `error`, `tty`, `command` and `port`.
pub(super) fn parameters(query: &Query, what: &str) -> Result<String, Status> {
    let mut out = Vec::new();
    if what == "portForward" {
        let mut ports = Vec::new();
        for port in query.all("ports").flat_map(|ports| ports.split(',')).filter(|port| !port.is_empty()) {
            match port.parse::<u16>() {
                Ok(port) if port > 0 => ports.push(port.to_string()),
                _ => return Err(Status::bad_request(format!("unable to parse {port:?} as a port"))),
            }
        }
        if !ports.is_empty() {
            out.push(format!("port={}", ports.join("%2C")));
        }
        return Ok(out.join("&"));
    }
    // The order is Go's: parameters sorted by name.
    out.extend(query.all("command").map(|word| format!("command={}", encode(word))));
    for (name, from, default) in [
        ("error", "stderr", true),
        ("input", "stdin", false),
        ("output", "stdout", true),
        ("tty", "tty", false),
    ] {
        // As in upstream's defaults, exec and attach give out what the process writes unless told otherwise.
        let on = if query.get(from).is_some() { query.flag(from) } else { default };
        if on {
            out.push(format!("{name}=1"));
        }
    }
    Ok(out.join("&"))
}

/// Percent-encodes a query value.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

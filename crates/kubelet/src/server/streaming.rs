//! Exec, attach and port forwarding: the runtime is asked for a URL, and then the client's connection and the
//! runtime's are joined byte by byte. What they speak (SPDY or WebSocket) is between them.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use sampan_cri::v1;
use tokio::net::TcpStream;

use super::Server;
use super::body::{Body, empty, full, text};
use super::logs::bare_id;
use crate::pod_ref;

const MAX_ERROR_BODY: usize = 64 * 1024;

/// The pairs of a query, percent-decoded.
pub(super) fn query_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key), percent_decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What a remote command request asks for.
struct Streams {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    /// The kubelet's own names (`input`, `output`, `error`) and those of the API are both understood.
    fn parse(query: &str) -> Result<Self, String> {
        let mut streams =
            Self { command: Vec::new(), stdin: false, stdout: false, stderr: false, tty: false };
        for (key, value) in query_pairs(query) {
            let flag = matches!(value.as_str(), "1" | "true");
            match key.as_str() {
                "command" => streams.command.push(value),
                "stdin" | "input" => streams.stdin |= flag,
                "stdout" | "output" => streams.stdout |= flag,
                "stderr" | "error" => streams.stderr |= flag,
                "tty" => streams.tty |= flag,
                _ => {}
            }
        }
        // A terminal has one output.
        if streams.tty {
            streams.stderr = false;
        }
        if !streams.stdin && !streams.stdout && !streams.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(streams)
    }
}

impl Server {
    pub(super) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let streams = match Streams::parse(request.uri().query().unwrap_or_default()) {
            Ok(streams) => streams,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let container_id = match self.running_container(namespace, pod, container).await {
            Ok(id) => id,
            Err(refusal) => return refusal,
        };
        let exec = v1::ExecRequest {
            container_id,
            cmd: streams.command,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            ..Default::default()
        };
        match self.ctx.config.cri.exec(exec).await {
            Ok(url) => splice(request, &url).await,
            Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, crate::cri::go_error(&status)),
        }
    }

    pub(super) async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let streams = match Streams::parse(request.uri().query().unwrap_or_default()) {
            Ok(streams) => streams,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let container_id = match self.running_container(namespace, pod, container).await {
            Ok(id) => id,
            // Upstream has other words here than for exec.
            Err(refusal) if refusal.status() == StatusCode::INTERNAL_SERVER_ERROR => {
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("container {container} not found in pod {pod}_{namespace}"),
                );
            }
            Err(refusal) => return refusal,
        };
        let tty = self
            .workers
            .find(namespace, pod)
            .and_then(|pod| pod_ref::find_container(&pod, container))
            .is_some_and(|(_, container)| container.tty == Some(true));
        let attach = v1::AttachRequest {
            container_id,
            stdin: streams.stdin,
            // The container decides whether there is a terminal, not the client.
            tty,
            stdout: streams.stdout,
            stderr: streams.stderr && !tty,
            ..Default::default()
        };
        match self.ctx.config.cri.attach(attach).await {
            Ok(url) => splice(request, &url).await,
            Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, crate::cri::go_error(&status)),
        }
    }

    pub(super) async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some(found) = self.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, "pod does not exist");
        };
        let port = query_pairs(request.uri().query().unwrap_or_default())
            .into_iter()
            .filter(|(key, _)| matches!(key.as_str(), "port" | "ports"))
            .flat_map(|(_, value)| {
                value.split(',').filter_map(|port| port.parse().ok()).collect::<Vec<i32>>()
            })
            .collect();
        let Some(pod_sandbox_id) = self.ready_sandbox(&found).await else {
            return text(StatusCode::NOT_FOUND, format!("no sandbox of pod {pod:?} is ready"));
        };
        match self.ctx.config.cri.port_forward(v1::PortForwardRequest { pod_sandbox_id, port }).await {
            Ok(url) => splice(request, &url).await,
            Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, crate::cri::go_error(&status)),
        }
    }

    async fn running_container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<String, Response<Body>> {
        let found = self
            .workers
            .find(namespace, pod)
            .ok_or_else(|| text(StatusCode::NOT_FOUND, "pod does not exist"))?;
        let status = self.ctx.status.current(pod_ref::uid(&found)).unwrap_or_default();
        let all = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let known = all.into_iter().flatten().flatten().find(|status| status.name == container);
        let not_found =
            || text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
        let id = known.and_then(|known| bare_id(known.container_id.as_deref())).ok_or_else(not_found)?;
        let running = v1::ContainerState::ContainerRunning as i32;
        match self.ctx.config.cri.container_status(&id).await {
            Ok(status) if status.state == running => Ok(id),
            _ => Err(not_found()),
        }
    }

    async fn ready_sandbox(&self, pod: &Pod) -> Option<String> {
        let filter = v1::PodSandboxFilter {
            state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 }),
            label_selector: [(crate::labels::POD_UID.to_owned(), pod_ref::uid(pod).to_owned())].into(),
            ..Default::default()
        };
        let mut sandboxes = self.ctx.config.cri.list_pod_sandboxes(filter).await.ok()?;
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        sandboxes.into_iter().next().map(|sandbox| sandbox.id)
    }
}

/// Sends the request on to `url` and joins the two connections when it is upgraded.
async fn splice(mut request: Request<Incoming>, url: &str) -> Response<Body> {
    let upstream = match forward(&mut request, url).await {
        Ok(answer) => answer,
        Err(error) => return text(StatusCode::BAD_GATEWAY, format!("error dialing the runtime: {error}")),
    };
    if upstream.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = upstream.into_parts();
        let body = Limited::new(body, MAX_ERROR_BODY).collect().await;
        let body = body.map(|body| full(body.to_bytes())).unwrap_or_else(|_| empty());
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        if let Some(content_type) = parts.headers.get(http::header::CONTENT_TYPE) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, content_type.clone());
        }
        return response;
    }
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = upstream.headers().clone();
    tokio::spawn(async move {
        let (client, runtime) = tokio::join!(hyper::upgrade::on(request), hyper::upgrade::on(upstream));
        if let (Ok(client), Ok(runtime)) = (client, runtime) {
            let mut client = TokioIo::new(client);
            let mut runtime = TokioIo::new(runtime);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut runtime).await;
        }
    });
    response
}

/// The same request, at the runtime's streaming server.
async fn forward(request: &mut Request<Incoming>, url: &str) -> Result<Response<Incoming>, String> {
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let host = uri.host().ok_or("no host in the runtime's URL")?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut outgoing = Request::builder()
        .method(if request.method() == Method::GET { Method::GET } else { Method::POST })
        .uri(path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    for (name, value) in request.headers() {
        // The client's credentials are not for the runtime.
        if name != HOST && name != http::header::AUTHORIZATION && name != http::header::CONTENT_LENGTH {
            outgoing.headers_mut().append(name.clone(), value.clone());
        }
    }
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    outgoing.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(|error| error.to_string())?);
    if !outgoing.headers().contains_key(UPGRADE) {
        return Err("the request is no upgrade".to_owned());
    }
    outgoing.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static("Upgrade"));
    sender.send_request(outgoing).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            query_pairs("command=echo&command=a%20b+c&tty"),
            [("command", "echo"), ("command", "a b c"), ("tty", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[test]
    fn a_terminal_has_no_stderr_and_something_must_be_streamed() {
        let streams = Streams::parse("command=sh&input=1&output=1&error=1&tty=1").unwrap();
        assert!(streams.stdin && streams.stdout && !streams.stderr && streams.tty);
        assert!(Streams::parse("command=sh").is_err());
    }
}

//! The HTTP server behind the URLs: takes a token, upgrades the connection, hands it to its protocol.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

use super::idle::Idle;
use super::negotiate::{self, Transport};
use super::remote_command::{self, Target};
use super::tokens::{Pending, Tokens};
use super::{Io, StreamingRuntime, port_forward, websocket};
use crate::{Error, v1};

/// A client has this long to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How the streaming server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0 takes a free one. Only the kubelet connects, so loopback.
    pub address: SocketAddr,
    /// A connection on which nothing moves for this long is closed (kubelet: `streamingConnectionIdleTimeout`).
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), idle_timeout: Duration::from_secs(4 * 3600) }
    }
}

/// The running server; it stops when its token is cancelled.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tokens: Arc<Tokens>,
}

impl Server {
    /// Listens and serves until `shutdown`; connections under way are not cut.
    ///
    /// # Errors
    /// [`Error::Streaming`] when the address cannot be used.
    pub async fn start(
        config: Config,
        runtime: Arc<dyn StreamingRuntime>,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Streaming { address: config.address, source };
        let listener = TcpListener::bind(config.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tokens = Arc::new(Tokens::default());
        let state = State { runtime, tokens: Arc::clone(&tokens), idle_timeout: config.idle_timeout };
        tokio::spawn(accept(listener, state, shutdown));
        Ok(Self { address, tokens })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for an exec. The error is a failure to read random numbers.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn exec_url(&self, request: v1::ExecRequest) -> std::io::Result<String> {
        self.url("exec", Pending::Exec(request))
    }

    /// The URL for an attach.
    ///
    /// # Errors
    /// As [`Self::exec_url`].
    pub fn attach_url(&self, request: v1::AttachRequest) -> std::io::Result<String> {
        self.url("attach", Pending::Attach(request))
    }

    /// The URL for a port-forward.
    ///
    /// # Errors
    /// As [`Self::exec_url`].
    pub fn port_forward_url(&self, request: v1::PortForwardRequest) -> std::io::Result<String> {
        self.url("portforward", Pending::PortForward(request))
    }

    fn url(&self, verb: &str, request: Pending) -> std::io::Result<String> {
        Ok(format!("http://{}/{verb}/{}", self.address, self.tokens.insert(request)?))
    }
}

#[derive(Clone)]
struct State {
    runtime: Arc<dyn StreamingRuntime>,
    tokens: Arc<Tokens>,
    idle_timeout: Duration,
}

async fn accept(listener: TcpListener, state: State, shutdown: CancellationToken) {
    loop {
        let connection = tokio::select! {
            () = shutdown.cancelled() => return,
            connection = listener.accept() => connection,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, for example: do not spin.
                tracing::warn!(%error, "accepting a streaming connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(request, &state)) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "streaming connection");
            }
        });
    }
}

fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    match prepare(&request, state) {
        Ok((response, session)) => {
            let upgrade = hyper::upgrade::on(request);
            let (runtime, idle) = (Arc::clone(&state.runtime), state.idle_timeout);
            tokio::spawn(async move {
                let io: Box<dyn Io> = match upgrade.await {
                    Ok(upgraded) => Box::new(Idle::new(TokioIo::new(upgraded), idle)),
                    Err(error) => return tracing::debug!(%error, "upgrade"),
                };
                if let Err(error) = session.serve(io, runtime).await {
                    tracing::debug!(%error, "streaming session");
                }
            });
            response
        }
        Err((status, message)) => {
            let mut response = Response::new(Full::new(Bytes::from(message + "\n")));
            *response.status_mut() = status;
            response
        }
    }
}

/// Why a request is not upgraded.
type Refusal = (StatusCode, String);

/// An upgrade that was agreed on.
struct Session {
    pending: Pending,
    transport: Transport,
    protocol: Option<&'static str>,
}

fn prepare(request: &Request<Incoming>, state: &State) -> Result<(Response<Full<Bytes>>, Session), Refusal> {
    if request.method() != Method::GET && request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned()));
    }
    let not_found = || (StatusCode::NOT_FOUND, "the streaming token is unknown, used or expired".to_owned());
    let (verb, token) = request.uri().path().trim_start_matches('/').split_once('/').ok_or_else(not_found)?;
    // Negotiated before the token is used up: a client that tries WebSocket and then SPDY needs it twice.
    let headers = request.headers();
    let transport = negotiate::transport(headers).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
    let websocket = matches!(transport, Transport::WebSocket { .. });
    let (header, supported) = match (websocket, verb) {
        (true, "portforward") => (negotiate::WEBSOCKET_PROTOCOL, negotiate::WEBSOCKET_PORT_FORWARD),
        (true, _) => (negotiate::WEBSOCKET_PROTOCOL, negotiate::WEBSOCKET_REMOTE_COMMAND),
        (false, "portforward") => (negotiate::STREAM_PROTOCOL, negotiate::SPDY_PORT_FORWARD),
        (false, _) => (negotiate::STREAM_PROTOCOL, negotiate::SPDY_REMOTE_COMMAND),
    };
    let protocol = negotiate::protocol(headers, &header, supported)
        .map_err(|message| (StatusCode::FORBIDDEN, message))?;
    let pending = state.tokens.take(token).ok_or_else(not_found)?;
    let matches = matches!(
        (verb, &pending),
        ("exec", Pending::Exec(_))
            | ("attach", Pending::Attach(_))
            | ("portforward", Pending::PortForward(_))
    );
    if !matches {
        return Err(not_found());
    }
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
    response = match &transport {
        Transport::WebSocket { key } => response
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
        Transport::Spdy => response.header(UPGRADE, "SPDY/3.1"),
    };
    if let Some(protocol) = protocol {
        response = response.header(header, protocol);
    }
    let response = response
        .body(Full::new(Bytes::new()))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((response, Session { pending, transport, protocol }))
}

impl Session {
    async fn serve(self, io: Box<dyn Io>, runtime: Arc<dyn StreamingRuntime>) -> std::io::Result<()> {
        let format = negotiate::error_format(self.protocol);
        let target = match self.pending {
            Pending::Exec(request) => Target::Exec(request),
            Pending::Attach(request) => Target::Attach(request),
            Pending::PortForward(request) => {
                return match self.transport {
                    Transport::Spdy => port_forward::serve(io, runtime, request.pod_sandbox_id).await,
                    Transport::WebSocket { .. } if self.protocol == Some(negotiate::PORT_FORWARD_TUNNEL) => {
                        let tunnel = websocket::Tunnel::new(websocket::accept(io).await);
                        port_forward::serve(Box::new(tunnel), runtime, request.pod_sandbox_id).await
                    }
                    Transport::WebSocket { .. } => {
                        websocket::serve_ports(io, runtime, request, self.protocol).await
                    }
                };
            }
        };
        match self.transport {
            Transport::Spdy => remote_command::serve(io, runtime, target, format, self.protocol).await,
            Transport::WebSocket { .. } => websocket::serve(io, runtime, target, format, self.protocol).await,
        }
    }
}

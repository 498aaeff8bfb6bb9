//! The kubelet's HTTPS port: logs, exec, attach, port forwarding, and what is going on, for the API server
//! and for administrators.

mod access;
mod body;
mod logs;
mod observe;
mod streaming;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::context::NodeContext;
use crate::error::Error;
use crate::pods::workers::Workers;
use body::{Body, text};

/// How long a client may take for its handshake, and for the head of each request.
const HEAD: Duration = Duration::from_secs(10);
/// Handshakes at a time: who only connects must not use up the process's files.
const HANDSHAKES: usize = 256;
/// Connections at a time of clients that showed no certificate (they may have tokens).
const STRANGERS: usize = 128;

/// What requests are answered from.
pub(crate) struct Server {
    ctx: Arc<NodeContext>,
    workers: Workers,
    strangers: Arc<Semaphore>,
}

/// Opens the port, when one is configured.
pub(crate) async fn start(
    ctx: &Arc<NodeContext>,
    workers: &Workers,
) -> Result<Option<(SocketAddr, JoinHandle<()>)>, Error> {
    let Some(serving) = &ctx.config.serving else { return Ok(None) };
    let mut serving = serving.clone();
    let identity = serving.identity.borrow_and_update().clone();
    let mut acceptor = tokio_rustls::TlsAcceptor::from(tls::server_config(&serving, &identity)?);
    let bound = serving.address;
    let listen_error = |source| Error::Listen { address: bound, source };
    let listener = TcpListener::bind(bound).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let server = Arc::new(Server {
        ctx: Arc::clone(ctx),
        workers: workers.clone(),
        strangers: Arc::new(Semaphore::new(STRANGERS)),
    });
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let task = tokio::spawn(async move {
        loop {
            let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, for instance: others go on.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if serving.identity.has_changed().unwrap_or(false) {
                let identity = serving.identity.borrow_and_update().clone();
                match tls::server_config(&serving, &identity) {
                    Ok(config) => acceptor = config.into(),
                    Err(error) => tracing::warn!(%error, "the renewed serving certificate"),
                }
            }
            let _ = stream.set_nodelay(true);
            let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
            tokio::spawn(async move {
                let handshake = tokio::time::timeout(HEAD, acceptor.accept(stream)).await;
                drop(turn);
                if let Ok(Ok(stream)) = handshake {
                    serve(server, stream).await;
                }
            });
        }
    });
    Ok(Some((address, task)))
}

async fn serve(server: Arc<Server>, stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
    let user = Arc::new(tls::peer_user(&stream));
    let _place = match user.as_ref() {
        Some(_) => None,
        None => match Arc::clone(&server.strangers).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => return,
        },
    };
    let service = hyper::service::service_fn(move |request| {
        let server = Arc::clone(&server);
        let user = Arc::clone(&user);
        async move {
            let response = match access::allow(&server.ctx, user.as_ref().as_ref(), &request).await {
                Ok(()) => server.route(request).await,
                Err(refusal) => refusal,
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD).keep_alive_timeout(HEAD);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::trace!(%error, "connection ended");
    }
}

impl Server {
    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let get = request.method() == Method::GET;
        let streams = get || request.method() == Method::POST;
        match segments.as_slice() {
            ["healthz"] | ["healthz", "ping" | "syncloop"] if get => text(StatusCode::OK, "ok"),
            ["pods"] if get => self.pods(),
            ["runningpods"] if get => self.running_pods().await,
            ["configz"] if get => self.configz(),
            ["stats", "summary"] if get => {
                self.stats_summary(request.uri().query().unwrap_or_default()).await
            }
            ["metrics"] if get => self.metrics().await,
            ["metrics", "resource"] if get => self.resource_metrics().await,
            ["metrics", "cadvisor"] if get => self.cadvisor_metrics().await,
            ["metrics", "probes"] if get => self.probe_metrics(),
            ["containerLogs", namespace, pod, container] if get => {
                self.container_logs(namespace, pod, container, request.uri().query().unwrap_or_default())
                    .await
            }
            ["exec", namespace, pod, .., container] if streams && segments.len() <= 5 => {
                self.exec(namespace, pod, container, request).await
            }
            ["attach", namespace, pod, .., container] if streams && segments.len() <= 5 => {
                self.attach(namespace, pod, container, request).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] if streams => {
                self.port_forward(namespace, pod, request).await
            }
            ["exec" | "attach" | "portForward" | "containerLogs" | "pods" | "healthz", ..] => {
                text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}

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

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::context::NodeContext;
use crate::error::Error;
use crate::pods::source::Workers;
use body::{Body, text};

/// What requests are answered from.
pub(crate) struct Server {
    ctx: Arc<NodeContext>,
    workers: Workers,
}

/// Opens the port, when one is configured.
pub(crate) async fn start(
    ctx: &Arc<NodeContext>,
    workers: &Workers,
) -> Result<Option<(SocketAddr, JoinHandle<()>)>, Error> {
    let Some(serving) = &ctx.config.serving else { return Ok(None) };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls::server_config(serving)?);
    let listen_error = |source| Error::Listen { address: serving.address, source };
    let listener = TcpListener::bind(serving.address).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let server = Arc::new(Server { ctx: Arc::clone(ctx), workers: workers.clone() });
    let task = tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, for instance: others go on.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(Arc::clone(&server), acceptor.clone(), stream));
        }
    });
    Ok(Some((address, task)))
}

async fn serve(server: Arc<Server>, acceptor: tokio_rustls::TlsAcceptor, stream: tokio::net::TcpStream) {
    let handshake = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        _ => return,
    };
    let user = Arc::new(tls::peer_user(&stream));
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
    let builder = Builder::new(TokioExecutor::new());
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

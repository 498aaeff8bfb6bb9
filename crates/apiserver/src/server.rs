//! The doors: HTTPS for the world, and a client in memory for the components of this process. Both lead to the
//! same [`crate::router::handle`].

mod connection;
mod draining;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authentication::InMemoryUser;
use crate::respond::Body;
use crate::user::UserInfo;
use crate::{ApiServer, Error, router};

/// Open connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
/// How long requests may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// After a failed `accept` (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the doors count, and whether they are closing.
#[derive(Debug, Default)]
pub struct Serving {
    draining: AtomicBool,
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Serving {
    /// Whether a stop was asked for: `/readyz` fails from then on.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Open HTTPS connections.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests so far, over HTTPS and in memory.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// Serves HTTPS on `listener` until `shutdown`; then lets requests finish, ends watches, and returns.
    ///
    /// # Errors
    /// When the serving certificate cannot be used.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(connection::tls(&self)?);
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { break };
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (server, acceptor, watcher, stop) =
                (self.clone(), acceptor.clone(), graceful.watcher(), shutdown.clone());
            tokio::spawn(async move {
                server.serving.connections.fetch_add(1, Ordering::Relaxed);
                connection::serve(&server, stream, acceptor, watcher, stop).await;
                server.serving.connections.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            });
        }
        self.serving.draining.store(true, Ordering::Relaxed);
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!(
                open = self.serving.connections(),
                "connections were still open when the API server stopped"
            );
        }
        Ok(())
    }

    /// A client for a component of this process: the same way as over HTTPS, without network and TLS. What `user` may
    /// not do is forbidden here as there.
    pub fn client(self: &Arc<Self>, user: UserInfo) -> kube::Client {
        let server = self.clone();
        let user = Arc::new(user);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, user) = (server.clone(), user.clone());
            async move {
                server.serving.count_request();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(InMemoryUser(user));
                Ok::<_, std::convert::Infallible>(router::handle(server, request).await)
            }
        });
        kube::Client::new(service, "default")
    }
}

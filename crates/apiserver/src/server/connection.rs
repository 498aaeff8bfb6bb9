//! One connection: TLS, who the peer is, HTTP/1.1 or HTTP/2 with upgrades.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::draining::EndsWith;
use crate::authentication::PeerCertificate;
use crate::respond::{Body, Response};
use crate::{ApiServer, Error, router};

/// From the connection to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For an HTTP/1 request's head, and from the handshake to the first request.
const HEAD: Duration = Duration::from_secs(30);
/// Requests on one HTTP/2 connection at a time (upstream's figure).
const STREAMS: u32 = 250;
const PING: Duration = Duration::from_secs(30);
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// What TLS needs to know.
pub(super) fn tls(server: &ApiServer) -> Result<Arc<ServerConfig>, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Identity {
        operation: "use the API server's serving certificate".into(),
        source,
    };
    let (chain, key) = server.config.pki.serving().to_rustls().map_err(|e| failed(Box::new(e)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| failed(Box::new(e)))?
        .with_client_cert_verifier(server.authentication.verifier().handshake())
        .with_single_cert(chain, key)
        .map_err(|e| failed(Box::new(e)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves a connection to its end. What goes wrong is the peer's affair and only noted.
pub(super) async fn serve(
    server: &Arc<ApiServer>,
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    graceful: Watcher,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    match tokio::time::timeout(HANDSHAKE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => {}
        Ok(Ok(1)) => {
            let text = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            return;
        }
        _ => return,
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| PeerCertificate(Arc::new(server.authentication.verifier().verify(chain))));
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (server, stop, asked) = (server.clone(), stop.clone(), asked.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let (server, stop) = (server.clone(), stop.clone());
            asked.store(true, Ordering::Relaxed);
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            async move {
                server.serving.count_request();
                let response = router::handle(server, request.map(Body::new)).await;
                Ok::<Response, Infallible>(end_with(response, stop))
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        ended = graceful.watch(connection) => if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        },
        () = silence(&asked) => tracing::debug!("connection without a request"),
    }
}

/// Ends when nothing was asked in time; never otherwise. Whoever connects must not hold a place for nothing, and hyper
/// waits for ever for the bytes that tell HTTP/2 from HTTP/1.
async fn silence(asked: &AtomicBool) {
    tokio::time::sleep(HEAD).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// A body whose length is open (a watch, a log) ends when the server stops; everything else is sent whole.
fn end_with(response: Response, stop: CancellationToken) -> Response {
    use http_body::Body as _;
    if response.status() == 101 || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::new(EndsWith::new(body, stop)))
}

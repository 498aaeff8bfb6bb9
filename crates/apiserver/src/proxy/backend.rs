//! Calling a kubelet, a pod or a Service: one connection for one request, with or without TLS.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use sampan_api::Status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;
use crate::pki::CertifiedKeyPem;
use crate::respond::Body;

const CONNECT: Duration = Duration::from_secs(10);

/// TLS settings of a client; without an authority anybody is trusted.
pub(super) fn tls(identity: Option<&CertifiedKeyPem>, ca: Option<&str>) -> Result<Arc<ClientConfig>, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Identity {
        operation: "use the API server's kubelet client certificate".into(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(Box::new(e)))?;
    let builder = match ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                let certificate = certificate.map_err(|e| failed(Box::new(e)))?;
                roots.add(certificate).map_err(|e| failed(Box::new(e)))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(algorithms))),
    };
    let config = match identity {
        Some(identity) => {
            let (chain, key) = identity.to_rustls().map_err(|e| failed(Box::new(e)))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| failed(Box::new(e)))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// Address or name and port: `10.0.0.1:10250`, `[fd00::1]:80`.
    pub(super) authority: String,
    /// TLS settings and the name that the certificate must have; `None` is plain HTTP.
    pub(super) tls: Option<(Arc<ClientConfig>, String)>,
}

impl Backend {
    fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority)
    }

    /// Sends the request. Its URI is path and query; `Host` is set here.
    ///
    /// # Errors
    /// 500 (503 for what is not a kubelet) with Go's words when there is no connection.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<http::Response<Incoming>, Status> {
        let path = request.uri().path().to_owned();
        let verb = request.method().as_str();
        let verb = format!("{}{}", &verb[..1], verb[1..].to_ascii_lowercase());
        let failed = |what: String| failure(format!("{verb} {:?}: {what}", self.url(&path)));
        let dial = |error: String| failed(format!("dial tcp {}: {error}", self.authority));
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&self.authority))
            .await
            .map_err(|_| dial("i/o timeout".to_owned()))?
            .map_err(|error| dial(connect_error(&error)))?;
        let _ = stream.set_nodelay(true);
        if let Ok(host) = HeaderValue::from_str(&self.authority) {
            request.headers_mut().insert(HOST, host);
        }
        match &self.tls {
            None => exchange(stream, request).await.map_err(failed),
            Some((config, name)) => {
                let name = ServerName::try_from(name.clone()).map_err(|error| failed(error.to_string()))?;
                let connect = TlsConnector::from(config.clone()).connect(name, stream);
                let stream = tokio::time::timeout(CONNECT, connect)
                    .await
                    .map_err(|_| failed("net/http: TLS handshake timeout".to_owned()))?
                    .map_err(|error| failed(format!("tls: {error}")))?;
                exchange(stream, request).await.map_err(failed)
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<http::Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It lives as long as the response's body or the upgraded stream.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    sender.send_request(request).await.map_err(|error| error.to_string())
}

fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn failure(message: String) -> Status {
    Status { message, code: 500, ..Status::default() }
}

/// Takes any server certificate whose key the peer holds.
#[derive(Debug)]
struct TrustAnybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

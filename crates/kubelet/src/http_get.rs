//! A small HTTP client for probes and hooks: one GET, bounded, certificates unchecked, redirects to the same
//! host only (HOOK-08 to HOOK-13, POD-40).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use tokio::net::TcpStream;

/// Bytes of an answer's body that are read.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct HttpGet {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// Headers of a request: the user's, and the defaults where the user gave none (HOOK-13).
pub(crate) fn headers(user: Option<&Vec<HTTPHeader>>, agent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in user.into_iter().flatten() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_str(&header.value))
        {
            headers.append(name, value);
        }
    }
    if !headers.contains_key(USER_AGENT)
        && let Ok(agent) = HeaderValue::from_str(agent)
    {
        headers.insert(USER_AGENT, agent);
    }
    match headers.get(ACCEPT).map(HeaderValue::is_empty) {
        None => {
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
        Some(true) => {
            headers.remove(ACCEPT);
        }
        Some(false) => {}
    }
    headers
}

/// Sends the request and follows redirects to the same host.
pub(crate) async fn get(request: &HttpGet) -> Result<HttpAnswer, String> {
    let mut request = request.clone();
    for _ in 0..=MAX_REDIRECTS {
        let (answer, location) = get_once(&request).await?;
        let Some(location) = location.filter(|_| answer.status.is_redirection()) else { return Ok(answer) };
        let Some(next) = redirect(&request, &location) else { return Ok(answer) };
        request = next;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// The request that a redirect leads to, when it stays on the host.
fn redirect(request: &HttpGet, location: &str) -> Option<HttpGet> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Some(host) = uri.host() else {
        return Some(HttpGet { path, ..request.clone() });
    };
    let current = request
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map_or_else(|| request.host.clone(), |host| host.split(':').next().unwrap_or_default().to_owned());
    if host.trim_matches(['[', ']']) != current && host.trim_matches(['[', ']']) != request.host {
        return None;
    }
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    Some(HttpGet { https, port, path, ..request.clone() })
}

async fn get_once(request: &HttpGet) -> Result<(HttpAnswer, Option<String>), String> {
    let address = (request.host.as_str(), request.port);
    // The static binary cannot look names up through libc; addresses (the usual case) need no look-up.
    let stream = match request.host.parse::<std::net::IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, request.port)).await,
        Err(_) if request.host == "localhost" => TcpStream::connect(("127.0.0.1", request.port)).await,
        Err(_) => TcpStream::connect(address).await,
    };
    let stream = stream.map_err(|error| {
        format!("dial tcp {}:{}: connect: {}", request.host, request.port, dial_error(&error))
    })?;
    if request.https {
        let connector = tokio_rustls::TlsConnector::from(unverified_tls());
        let name = rustls_pki_types::ServerName::try_from(request.host.clone())
            .map_err(|error| format!("invalid host {:?}: {error}", request.host))?;
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

/// A connection error as Go words it.
pub(crate) fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

async fn exchange<T>(io: T, request: &HttpGet) -> Result<(HttpAnswer, Option<String>), String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let path =
        if request.path.starts_with('/') { request.path.clone() } else { format!("/{}", request.path) };
    let mut outgoing = Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    *outgoing.headers_mut() = request.headers.clone();
    if !outgoing.headers().contains_key(HOST) {
        let host = match request.host.contains(':') {
            true => format!("[{}]:{}", request.host, request.port),
            false => format!("{}:{}", request.host, request.port),
        };
        outgoing.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(|error| error.to_string())?);
    }
    let answer = sender.send_request(outgoing).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let location =
        answer.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
    // A longer body is cut off, which is no failure.
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    drop(sender);
    connection.abort();
    Ok((HttpAnswer { status, body }, location))
}

/// TLS without a look at the certificate: probes and hooks talk to whoever is in the pod (HOOK-11).
fn unverified_tls() -> Arc<rustls::ClientConfig> {
    static CONFIG: std::sync::LazyLock<Arc<rustls::ClientConfig>> = std::sync::LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default TLS versions");
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Arc::new(config)
    });
    Arc::clone(&CONFIG)
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

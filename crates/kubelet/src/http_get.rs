//! A small HTTP client for probes and hooks: one GET, bounded, certificates unchecked, redirects to the same
//! host only (HOOK-08 to HOOK-13, POD-40).

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use sampan_oci::registry::Resolver;
use tokio::net::TcpStream;

/// Bytes of an answer's body that are read.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;
/// How long a connection may take to come about.
const DIAL_TIME: Duration = Duration::from_secs(30);
/// How long an answer's body may take: status and headers are what counts.
const BODY_TIME: Duration = Duration::from_secs(1);

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct HttpGet {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Whether the answer is only good with its body, as a probe's is; a hook's has been given with its status.
    pub(crate) whole: bool,
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

impl HttpGet {
    /// The address as error texts show it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let path = self.path.trim_start_matches('/');
        format!("{scheme}://{}/{path}", authority(&self.host, self.port))
    }
}

/// `host:port`, with brackets around IPv6.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Sends the request and follows redirects to the same host.
///
/// # Errors
/// The text that Go's client would give: `Get "<url>": <why>`.
pub(crate) async fn get(request: &HttpGet) -> Result<HttpAnswer, String> {
    let mut request = request.clone();
    let told = |request: &HttpGet, error: String| format!("Get {:?}: {error}", request.url());
    for _ in 0..MAX_REDIRECTS {
        let (answer, location) = get_once(&request).await.map_err(|error| told(&request, error))?;
        let Some(location) = location.filter(|_| answer.status.is_redirection()) else { return Ok(answer) };
        let Some(next) = redirect(&request, &location) else { return Ok(answer) };
        request = next;
    }
    Err(told(&request, format!("stopped after {MAX_REDIRECTS} redirects")))
}

/// A TCP connection.
///
/// # Errors
/// The text that Go's dialer would give.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    // The static binary cannot look names up through the C library.
    static RESOLVER: LazyLock<Resolver> = LazyLock::new(Resolver::from_system);
    let target = authority(host, port);
    let connect = async {
        let addresses: Vec<SocketAddr> = match host.parse() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => {
                let found = RESOLVER.lookup(host).await;
                let found = found.map_err(|error| format!("dial tcp: lookup {host}: {}", error.reason))?;
                found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
            }
        };
        TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|error| format!("dial tcp {target}: connect: {}", dial_error(&error)))
    };
    tokio::time::timeout(DIAL_TIME, connect)
        .await
        .unwrap_or_else(|_| Err(format!("dial tcp {target}: i/o timeout")))
}

/// The request that a redirect leads to, when it stays on the host. What has no scheme is relative to the request.
fn redirect(request: &HttpGet, location: &str) -> Option<HttpGet> {
    let location = location.split('#').next().unwrap_or_default();
    let absolute = match location.split_once(':') {
        // A colon after the beginning of a path, query or host is none of a scheme.
        Some((scheme, _)) if !scheme.contains(['/', '?']) => location.to_owned(),
        _ if location.starts_with("//") => {
            format!("{}:{location}", if request.https { "https" } else { "http" })
        }
        _ => return Some(HttpGet { path: relative(&request.path, location), ..request.clone() }),
    };
    let uri: Uri = absolute.parse().ok()?;
    let https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let host = uri.host()?;
    let current = request
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map_or_else(|| request.host.clone(), |host| host.split(':').next().unwrap_or_default().to_owned());
    if host.trim_matches(['[', ']']) != current && host.trim_matches(['[', ']']) != request.host {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    Some(HttpGet { https, port, path, ..request.clone() })
}

/// What `reference` means in a document at `base` (RFC 3986, section 5.2), both paths with or without a query.
fn relative(base: &str, reference: &str) -> String {
    let base = base.split(['?', '#']).next().unwrap_or_default();
    let (path, query) = match reference.find('?') {
        Some(at) => reference.split_at(at),
        None => (reference, ""),
    };
    let joined = match path {
        "" => base.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", base.rsplit_once('/').map_or("", |(directory, _)| directory)),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/').skip_while(|part| part.is_empty()) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if matches!(joined.rsplit('/').next(), Some("." | "..")) {
        parts.push("");
    }
    format!("/{}{query}", parts.join("/"))
}

async fn get_once(request: &HttpGet) -> Result<(HttpAnswer, Option<String>), String> {
    let stream = dial(&request.host, request.port).await?;
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
fn dial_error(error: &std::io::Error) -> String {
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
    // Aborted also when this call is given up in the middle.
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let path =
        if request.path.starts_with('/') { request.path.clone() } else { format!("/{}", request.path) };
    let path = path.split('#').next().unwrap_or_default();
    let mut outgoing = Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    *outgoing.headers_mut() = request.headers.clone();
    if !outgoing.headers().contains_key(HOST) {
        let host = authority(&request.host, request.port);
        outgoing.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(|error| error.to_string())?);
    }
    let answer = sender.send_request(outgoing).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let location =
        answer.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
    let body = beginning(answer.into_body());
    let body = match request.whole {
        true => body.await?,
        false => tokio::time::timeout(BODY_TIME, body).await.unwrap_or(Ok(String::new())).unwrap_or_default(),
    };
    Ok((HttpAnswer { status, body }, location))
}

/// The beginning of a body; a longer one is cut off, which is no failure.
async fn beginning(mut body: hyper::body::Incoming) -> Result<String, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(|error| error.to_string())?.data_ref() {
            let room = MAX_BODY.saturating_sub(bytes.len()).min(data.len());
            bytes.extend_from_slice(&data[..room]);
            if bytes.len() >= MAX_BODY {
                break;
            }
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// TLS without a look at the certificate: probes and hooks talk to whoever is in the pod (HOOK-11).
fn unverified_tls() -> Arc<rustls::ClientConfig> {
    static CONFIG: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
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

/// Takes whatever the peer shows. Its signature is not looked at either: it would only tell that the peer has the key of
/// a certificate that anybody may have made, and webpki cannot read those of version 1, which upstream's kubelet takes.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pod_40_a_redirect_is_relative_to_the_request_and_stays_on_the_host() {
        let request = HttpGet {
            https: false,
            host: "10.0.0.2".into(),
            port: 8080,
            path: "/app/health?full".into(),
            headers: HeaderMap::new(),
            whole: true,
        };
        for (location, leads_to) in [
            ("login", Some("http://10.0.0.2:8080/app/login")),
            ("login?next=http://x/", Some("http://10.0.0.2:8080/app/login?next=http://x/")),
            ("./a/../b/", Some("http://10.0.0.2:8080/app/b/")),
            ("../..", Some("http://10.0.0.2:8080/")),
            ("?again", Some("http://10.0.0.2:8080/app/health?again")),
            ("/login#top", Some("http://10.0.0.2:8080/login")),
            ("//10.0.0.2/x", Some("http://10.0.0.2:80/x")),
            ("https://10.0.0.2:8443/x", Some("https://10.0.0.2:8443/x")),
            ("http://elsewhere/x", None),
            ("//elsewhere", None),
            ("mailto:x", None),
        ] {
            let next = redirect(&request, location).map(|next| next.url());
            assert_eq!(next.as_deref(), leads_to, "{location}");
        }
    }
}

//! A registry in memory that can be told to misbehave. Speaks HTTP/1.1 by hand, because faults are about bytes;
//! over TLS when wanted.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

/// What goes wrong, for the next requests whose line contains a text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// The same of the whole, whatever range was asked for.
    Truncate(usize),
    /// The connection is reset after this many bytes of the body.
    Reset(usize),
    /// Nothing more after this many bytes of the body.
    Stall(usize),
    /// So many bytes at a time, with a pause between.
    Drip(usize, Duration),
    /// A status with extra headers and a body.
    Status(u16, String, String),
    /// A redirect.
    Redirect(String),
    /// Other bytes of the same length.
    Corrupt,
    /// Another body than what is stored.
    Body(Vec<u8>),
    /// Another media type.
    Type(&'static str),
    /// The range is ignored and everything is sent.
    IgnoreRange,
    /// Ranges are refused.
    NoRange,
    /// All tokens expire just before this request.
    Expire,
}

#[derive(Clone, Debug)]
pub enum Auth {
    None,
    Basic(String, String),
    /// User and password at the token server.
    Bearer {
        user: Option<(String, String)>,
        realm: Option<String>,
    },
    /// A refresh token at the token server (OAuth2).
    Refresh(String),
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    /// The whole head.
    pub head: String,
    /// The body, as text.
    pub body: String,
    /// Whether the client showed a certificate.
    pub certified: bool,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, (String, Vec<u8>)>,
    pub faults: Vec<(String, usize, Fault)>,
    pub seen: Vec<Seen>,
    pub tokens: Vec<String>,
    /// Requests being answered now, and the most there ever were.
    pub busy: (usize, usize),
}

/// A certificate authority and what it issues.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Certificate and key for a name or address.
    pub fn issue(&self, name: &str) -> (String, String) {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn acceptor(&self, name: &str, client: bool) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

pub struct Fake {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(auth: Auth) -> Self {
        Self::listen(auth, None).await
    }

    /// Over TLS, with a certificate for `name`; `client` demands one of the same authority from clients.
    pub async fn start_tls(auth: Auth, authority: &Authority, name: &str, client: bool) -> Self {
        Self::listen(auth, Some(authority.acceptor(name, client))).await
    }

    async fn listen(auth: Auth, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, auth, tls) = (shared.clone(), auth.clone(), tls.clone());
                tokio::spawn(async move {
                    // A close with linger 0 is a reset; only the fault closes early.
                    let reset = socket_of(&stream);
                    match tls {
                        None => serve(stream, state, auth, address, false, reset).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let certified = stream.get_ref().1.peer_certificates().is_some();
                                serve(stream, state, auth, address, certified, reset).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn image(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    pub fn blob(&self, digest: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().blobs.insert(digest.to_owned(), bytes);
    }

    /// `version` is a tag or digest; the right digest always works, too.
    pub fn manifest(&self, version: &str, media_type: &str, bytes: Vec<u8>) {
        let digest = sampan_oci::Digest::sha256(&bytes).to_string();
        self.state.lock().unwrap().manifests.insert(digest, (media_type.to_owned(), bytes.clone()));
        self.state.lock().unwrap().manifests.insert(version.to_owned(), (media_type.to_owned(), bytes));
    }

    pub fn fault(&self, contains: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((contains.to_owned(), times, fault));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub fn count(&self, contains: &str) -> usize {
        self.seen().iter().filter(|s| s.line.contains(contains)).count()
    }
}

/// A second handle of the socket, for the reset.
fn socket_of(stream: &tokio::net::TcpStream) -> std::net::TcpStream {
    use std::os::fd::AsFd;
    stream.as_fd().try_clone_to_owned().unwrap().into()
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    state: Arc<Mutex<State>>,
    auth: Auth,
    address: SocketAddr,
    certified: bool,
    socket: std::net::TcpStream,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0u8; 1];
            match stream.read(&mut byte).await {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let line = text.lines().next().unwrap_or_default().to_owned();
        let header = |name: &str| {
            text.lines().skip(1).find_map(|l| {
                let (key, value) = l.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let mut body = vec![0; header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        let (authorization, range) = (header("authorization"), header("range"));
        let seen = Seen {
            line: line.clone(),
            authorization: authorization.clone(),
            range: range.clone(),
            head: text.clone(),
            body: body.clone(),
            certified,
        };
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fault = {
            let mut state = state.lock().unwrap();
            state.seen.push(seen);
            state.busy.0 += 1;
            state.busy.1 = state.busy.1.max(state.busy.0);
            let hit =
                state.faults.iter().position(|(contains, times, _)| line.contains(contains) && *times > 0);
            hit.map(|i| {
                state.faults[i].1 -= 1;
                state.faults[i].2.clone()
            })
        };
        let asked = Asked { target, authorization, range, body };
        let answer = answer(&state, &auth, address, &asked, fault.as_ref());
        let goes_on = send(&mut stream, method, answer, fault, &socket).await;
        state.lock().unwrap().busy.0 -= 1;
        if !goes_on {
            return;
        }
    }
}

struct Asked<'a> {
    target: &'a str,
    authorization: Option<String>,
    range: Option<String>,
    body: String,
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn plain(status: u16, headers: &str, body: &str) -> Answer {
    Answer { status, headers: headers.to_owned(), body: body.as_bytes().to_vec() }
}

fn answer(
    state: &Mutex<State>,
    auth: &Auth,
    address: SocketAddr,
    asked: &Asked<'_>,
    fault: Option<&Fault>,
) -> Answer {
    use base64::Engine as _;
    let Asked { target, authorization, range, body } = asked;
    match fault {
        Some(Fault::Status(status, headers, body)) => return plain(*status, headers, body),
        Some(Fault::Redirect(to)) => return plain(307, &format!("Location: {to}\r\n"), ""),
        _ => {}
    }
    let mut state = state.lock().unwrap();
    if matches!(fault, Some(Fault::Expire)) {
        state.tokens.iter_mut().for_each(|token| token.push_str(" expired"));
    }
    let basic = |user: &str, password: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    };
    // What a proxy gets names the scheme and host, too.
    let target = match target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..])) {
        Some(path) => path,
        None => target,
    };
    let target = target.split("?ns=").next().unwrap_or_default();
    if target.starts_with("/token") {
        let good = match auth {
            Auth::Bearer { user: Some((user, password)), .. } => {
                *authorization == Some(basic(user, password))
            }
            Auth::Bearer { user: None, .. } => true,
            Auth::Refresh(token) => {
                body.contains("grant_type=refresh_token") && body.contains(&format!("refresh_token={token}"))
            }
            _ => return plain(404, "", ""),
        };
        if !good {
            return plain(401, "", r#"{"details":"incorrect username or password"}"#);
        }
        let token = format!("token-{}", state.tokens.len());
        state.tokens.push(token.clone());
        let key = if matches!(auth, Auth::Refresh(_)) { "access_token" } else { "token" };
        return plain(200, "", &format!(r#"{{"{key}":"{token}","expires_in":300}}"#));
    }
    let allowed = match auth {
        Auth::None => true,
        Auth::Basic(user, password) => *authorization == Some(basic(user, password)),
        Auth::Bearer { .. } | Auth::Refresh(_) => {
            state.tokens.iter().any(|t| *authorization == Some(format!("Bearer {t}")))
        }
    };
    if !allowed && !target.starts_with("/elsewhere") {
        let challenge = match auth {
            Auth::Bearer { .. } | Auth::Refresh(_) => {
                let given = if let Auth::Bearer { realm, .. } = auth { realm.clone() } else { None };
                let realm = given.unwrap_or_else(|| format!("http://{address}/token"));
                format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:x:pull\"")
            }
            _ => "Basic realm=\"fake\"".to_owned(),
        };
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        return plain(401, &format!("WWW-Authenticate: {challenge}\r\n"), body);
    }
    let Some((_, rest)) =
        target.rsplit_once(if target.contains("/manifests/") { "/manifests/" } else { "/blobs/" })
    else {
        return plain(404, "", "");
    };
    if target.contains("/manifests/") {
        let Some((media_type, bytes)) = state.manifests.get(rest) else {
            return plain(
                404,
                "",
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        };
        let digest = sampan_oci::Digest::sha256(bytes);
        let media_type = if let Some(Fault::Type(other)) = fault { other } else { media_type.as_str() };
        let headers = format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n");
        let body = if let Some(Fault::Body(other)) = fault { other.clone() } else { bytes.clone() };
        return Answer { status: 200, headers, body };
    }
    let Some(mut bytes) = state.blobs.get(rest).cloned() else {
        return plain(404, "", r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
    };
    match fault {
        Some(Fault::Corrupt) => {
            let at = bytes.len() / 2;
            bytes[at] ^= 0xff;
        }
        Some(Fault::Body(other)) => bytes.clone_from(other),
        Some(Fault::NoRange) if range.is_some() => return plain(416, "", ""),
        _ => {}
    }
    let start =
        range.as_ref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start)
            if !matches!(fault, Some(Fault::IgnoreRange | Fault::Truncate(_))) && start < bytes.len() =>
        {
            let headers = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            Answer { status: 206, headers, body: bytes.split_off(start) }
        }
        _ => Answer { status: 200, headers: String::new(), body: bytes },
    }
}

/// False when the connection is over.
async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    method: &str,
    answer: Answer,
    fault: Option<Fault>,
    socket: &std::net::TcpStream,
) -> bool {
    let Answer { status, headers, body } = answer;
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    if method == "HEAD" {
        return stream.flush().await.is_ok();
    }
    let part = |n: usize| &body[..n.min(body.len())];
    match fault {
        Some(Fault::Cut(n) | Fault::Truncate(n)) => {
            let _ = stream.write_all(part(n)).await;
            let _ = stream.shutdown().await;
            false
        }
        Some(Fault::Reset(n)) => {
            let _ = stream.write_all(part(n)).await;
            let _ = stream.flush().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
            false
        }
        Some(Fault::Stall(n)) => {
            let _ = stream.write_all(part(n)).await;
            let _ = stream.flush().await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            false
        }
        Some(Fault::Drip(n, pause)) => {
            for piece in body.chunks(n) {
                if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                    return false;
                }
                tokio::time::sleep(pause).await;
            }
            true
        }
        _ => stream.write_all(&body).await.is_ok() && stream.flush().await.is_ok(),
    }
}

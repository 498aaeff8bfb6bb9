//! A registry in memory that can be told to misbehave. Speaks HTTP/1.1 by hand, because faults are about bytes.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong, for the next requests whose line contains a text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// Nothing more after this many bytes of the body.
    Stall(usize),
    /// A status with extra headers and a body.
    Status(u16, String, String),
    /// A redirect.
    Redirect(String),
    /// Other bytes of the same length.
    Corrupt,
    /// The range is ignored and everything is sent.
    IgnoreRange,
}

#[derive(Clone, Debug)]
pub enum Auth {
    None,
    Basic(String, String),
    /// User and password at the token server; tokens live for one second less than nothing when `expired`.
    Bearer {
        user: Option<(String, String)>,
        realm: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, (String, Vec<u8>)>,
    pub faults: Vec<(String, usize, Fault)>,
    pub seen: Vec<Seen>,
    pub tokens: Vec<String>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), auth.clone(), address));
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

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, auth: Auth, address: SocketAddr) {
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
        if let Some(length) = header("content-length").and_then(|l| l.parse::<usize>().ok()) {
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
        }
        let (authorization, range) = (header("authorization"), header("range"));
        let seen = Seen { line: line.clone(), authorization: authorization.clone(), range: range.clone() };
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fault = {
            let mut state = state.lock().unwrap();
            state.seen.push(seen);
            let hit =
                state.faults.iter().position(|(contains, times, _)| line.contains(contains) && *times > 0);
            hit.map(|i| {
                state.faults[i].1 -= 1;
                state.faults[i].2.clone()
            })
        };
        let answer = answer(&state, &auth, address, method, target, authorization, range, fault.as_ref());
        if !send(&mut stream, method, answer, fault).await {
            return;
        }
    }
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn plain(status: u16, headers: &str, body: &str) -> Answer {
    Answer { status, headers: headers.to_owned(), body: body.as_bytes().to_vec() }
}

#[allow(clippy::too_many_arguments)]
fn answer(
    state: &Mutex<State>,
    auth: &Auth,
    address: SocketAddr,
    method: &str,
    target: &str,
    authorization: Option<String>,
    range: Option<String>,
    fault: Option<&Fault>,
) -> Answer {
    use base64::Engine as _;
    match fault {
        Some(Fault::Status(status, headers, body)) => return plain(*status, headers, body),
        Some(Fault::Redirect(to)) => return plain(307, &format!("Location: {to}\r\n"), ""),
        _ => {}
    }
    let mut state = state.lock().unwrap();
    let basic = |user: &str, password: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    };
    if target.starts_with("/token") {
        let Auth::Bearer { user, .. } = auth else { return plain(404, "", "") };
        if let Some((user, password)) = user
            && authorization != Some(basic(user, password))
        {
            return plain(401, "", r#"{"details":"incorrect username or password"}"#);
        }
        let token = format!("token-{}", state.tokens.len());
        state.tokens.push(token.clone());
        return plain(200, "", &format!(r#"{{"token":"{token}","expires_in":300}}"#));
    }
    let allowed = match auth {
        Auth::None => true,
        Auth::Basic(user, password) => authorization == Some(basic(user, password)),
        Auth::Bearer { .. } => state.tokens.iter().any(|t| authorization == Some(format!("Bearer {t}"))),
    };
    if !allowed && !target.starts_with("/elsewhere") {
        let challenge = match auth {
            Auth::Bearer { realm, .. } => {
                let realm = realm.clone().unwrap_or_else(|| format!("http://{address}/token"));
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
        let headers = format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n");
        return Answer { status: 200, headers, body: bytes.clone() };
    }
    let _ = method;
    let Some(mut bytes) = state.blobs.get(rest).cloned() else {
        return plain(404, "", r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
    };
    if matches!(fault, Some(Fault::Corrupt)) {
        let at = bytes.len() / 2;
        bytes[at] ^= 0xff;
    }
    let start = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start) if !matches!(fault, Some(Fault::IgnoreRange)) && start < bytes.len() => {
            let headers = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            Answer { status: 206, headers, body: bytes.split_off(start) }
        }
        _ => Answer { status: 200, headers: String::new(), body: bytes },
    }
}

/// False when the connection is over.
async fn send(stream: &mut TcpStream, method: &str, answer: Answer, fault: Option<Fault>) -> bool {
    let Answer { status, headers, body } = answer;
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    if method == "HEAD" {
        return true;
    }
    match fault {
        Some(Fault::Cut(n)) => {
            let _ = stream.write_all(&body[..n.min(body.len())]).await;
            let _ = stream.flush().await;
            false
        }
        Some(Fault::Stall(n)) => {
            let _ = stream.write_all(&body[..n.min(body.len())]).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            false
        }
        _ => stream.write_all(&body).await.is_ok(),
    }
}

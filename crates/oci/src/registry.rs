//! The client for registries (OCI distribution-spec, Docker registry v2).
//!
//! One [`Client`] serves the whole process; a [`Session`] is one pull's view of one repository with one
//! set of credentials. Where a repository's requests go is decided by [`Hosts`]: the registry itself, or
//! what [`CertsD`] says about it.

mod auth;
mod blob;
mod certs_d;
mod challenge;
mod config;
mod error;
mod hosts;
mod reply;
mod request;
mod resolve;
mod tls;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method};

pub use auth::Credentials;
pub use blob::BlobStream;
pub use certs_d::{CertsD, HostEntry, HostsFile};
pub use config::{ClientConfig, Proxies};
pub use error::{At, Cause, Operation, RegistryError};
pub use hosts::{Capability, Endpoint, EndpointTls, Hosts, HostsError, StaticHosts};
pub use resolve::{ResolveError, Resolver};

use crate::digest::{Digest, Verifier};
use crate::manifest::{Descriptor, MAX_MANIFEST, ManifestError, media_type};
use crate::reference::Reference;
use auth::TokenCache;
use reply::read_bounded;
use request::{Call, Patience};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Talks to any number of registries; cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    hosts: Arc<dyn Hosts>,
    /// One connection pool per TLS variant that endpoints ask for.
    pools: Mutex<HashMap<tls::Variant, reqwest::Client>>,
    /// Requests under way, by origin and by whether their answers may be long.
    gates: Mutex<HashMap<(String, bool), Arc<Semaphore>>>,
    /// Origins that could not be reached, and until when they are asked last.
    shunned: Mutex<HashMap<String, Instant>>,
    resolver: Arc<Resolver>,
    tokens: TokenCache,
}

/// Variants (so also certificates that were replaced) whose pools are kept.
const MAX_POOLS: usize = 64;
/// Origins that are remembered.
const MAX_ORIGINS: usize = 1024;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; certificates are read now, connections are made when needed.
    pub fn new(config: ClientConfig) -> Result<Self, RegistryError> {
        let hosts = Arc::new(CertsD::new(config.certs_d.clone(), config.insecure.clone()));
        Self::with_hosts(config, hosts)
    }

    /// A client whose endpoints are decided elsewhere.
    pub fn with_hosts(config: ClientConfig, hosts: Arc<dyn Hosts>) -> Result<Self, RegistryError> {
        let resolver = Arc::new(Resolver::from_system());
        let client = Self {
            inner: Arc::new(Inner {
                config,
                hosts,
                pools: Mutex::default(),
                gates: Mutex::default(),
                shunned: Mutex::default(),
                resolver,
                tokens: TokenCache::default(),
            }),
        };
        // A broken CA file is a mistake to hear about at the start, not at the first pull.
        client.pool(tls::Variant::default())?;
        Ok(client)
    }

    /// One repository, seen with these credentials.
    pub fn session(&self, reference: &Reference, credentials: Credentials) -> Session {
        Session {
            client: self.clone(),
            host: reference.host().to_owned(),
            path: reference.path().to_owned(),
            credentials,
            mirrors: Arc::default(),
            distrusted: Arc::default(),
        }
    }

    /// The servers (`host[:port]`) that are asked instead of a registry host, in order. Credentials of the host
    /// are not for them; [`Session::with_mirror_logins`] takes their own.
    ///
    /// # Errors
    /// When what an administrator wrote about the host cannot be understood.
    pub fn mirrors(&self, host: &str) -> Result<Vec<String>, HostsError> {
        let mut servers: Vec<String> = Vec::new();
        for endpoint in self.inner.hosts.endpoints(host, Capability::Pull)? {
            let server = server(&endpoint.origin);
            if !endpoint.credentials && !servers.iter().any(|known| known == server) {
                servers.push(server.to_owned());
            }
        }
        Ok(servers)
    }

    fn pool(&self, variant: tls::Variant) -> Result<reqwest::Client, RegistryError> {
        let mut pools = self.inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&variant) {
            return Ok(pool.clone());
        }
        let pool = tls::pool(&self.inner.config, &variant, self.inner.resolver.clone())?;
        if pools.len() >= MAX_POOLS {
            pools.clear();
        }
        pools.insert(variant, pool.clone());
        Ok(pool)
    }

    /// What limits the requests to one server: a quarter is kept for short answers.
    fn gate(&self, origin: &str, bulk: bool) -> Arc<Semaphore> {
        let all = self.inner.config.connections_per_host.max(2);
        let short = (all / 4).max(1);
        let mut gates = self.inner.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= MAX_ORIGINS {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let gate = gates.entry((origin.to_owned(), bulk));
        gate.or_insert_with(|| Arc::new(Semaphore::new(if bulk { all - short } else { short }))).clone()
    }

    /// Asks this origin last for a while.
    fn shun(&self, origin: &str) {
        let mut shunned = self.inner.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        shunned.retain(|_, until| *until > now);
        shunned.insert(origin.to_owned(), now + self.inner.config.shun);
    }

    fn is_shunned(&self, origin: &str) -> bool {
        let shunned = self.inner.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.get(origin).is_some_and(|until| *until > Instant::now())
    }
}

/// A manifest as the registry sent it.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The bytes, verified when the digest was known.
    pub bytes: Bytes,
    /// Their digest (computed, not believed).
    pub digest: Digest,
    /// `Content-Type`.
    pub media_type: Option<String>,
}

impl FetchedManifest {
    /// A descriptor of it.
    pub fn descriptor(&self) -> Descriptor {
        let media_type = self.media_type.clone().unwrap_or_default();
        Descriptor { media_type, digest: self.digest.clone(), ..Descriptor::of("", &self.bytes) }
    }
}

/// One repository with one set of credentials.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    /// The registry host of the image name.
    host: String,
    /// The repository without host.
    path: String,
    credentials: Credentials,
    /// For each mirror the credentials that are tried there.
    mirrors: Arc<HashMap<String, Vec<Credentials>>>,
    /// Servers that gave wrong content to this pull.
    distrusted: Arc<Mutex<HashSet<String>>>,
}

impl Session {
    /// With credentials of mirrors, by server (`host[:port]`); several for one are tried in order.
    #[must_use]
    pub fn with_mirror_logins(self, logins: HashMap<String, Vec<Credentials>>) -> Self {
        Self { mirrors: Arc::new(logins), ..self }
    }

    /// The digest that a tag means now, without fetching anything else (IMG-53). `None` when the registry
    /// does not say it in a header; then fetch the manifest.
    pub async fn resolve(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let call = self.call(
            Operation::Manifest(tag.to_owned()),
            Method::HEAD,
            format!("manifests/{tag}"),
            accept(),
        );
        // What a digest means is known; whether it is there says who gives it.
        let capability = if tag.parse::<Digest>().is_ok() { Capability::Pull } else { Capability::Resolve };
        let reply = self
            .first(&call.operation, capability, |session, endpoint, last| {
                let call = call.clone();
                Box::pin(async move {
                    let reply = session.send_to(&endpoint, &call, last).await?;
                    session.refuse_schema1(&endpoint, &call.operation, reply.response.headers())?;
                    Ok(reply)
                })
            })
            .await?;
        let digest = reply.response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        Ok(digest.and_then(|d| d.parse().ok()))
    }

    /// A manifest or index by tag or digest. By digest the content is verified, and a mirror that gives
    /// something else is passed over.
    pub async fn manifest(&self, version: &str) -> Result<FetchedManifest, RegistryError> {
        let operation = Operation::Manifest(version.to_owned());
        let call = self.call(operation, Method::GET, format!("manifests/{version}"), accept());
        // Giving a tag's manifest says what the tag means.
        let expected: Option<Digest> = version.parse().ok();
        let capability = if expected.is_some() { Capability::Pull } else { Capability::Resolve };
        self.first(&call.operation, capability, |session, endpoint, last| {
            let (call, expected) = (call.clone(), expected.clone());
            Box::pin(async move { session.manifest_at(&endpoint, &call, expected, last).await })
        })
        .await
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        expected: Option<Digest>,
        patience: Patience,
    ) -> Result<FetchedManifest, RegistryError> {
        let reply = self.send_to(endpoint, call, patience).await?;
        let at = At { place: self.place(endpoint), ..self.at(&call.operation) };
        let media_type = reply
            .response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(|t| t.trim().to_owned());
        self.refuse_schema1(endpoint, &call.operation, reply.response.headers())?;
        let timeout = self.client.inner.config.document_timeout;
        let bytes = read_bounded(reply, MAX_MANIFEST, timeout, &at).await?;
        let digest = match expected {
            Some(expected) => {
                let mut verifier = Verifier::new(expected.clone(), None);
                let result = verifier.update(&bytes).and_then(|()| verifier.finish().map(|_| ()));
                result.map_err(|source| RegistryError::Verify { at, source })?;
                expected
            }
            None => Digest::sha256(&bytes),
        };
        Ok(FetchedManifest { bytes, digest, media_type })
    }

    /// Such a manifest has another digest than its bytes (signatures stand in them), so that this would be found wrong
    /// before anybody read what it is.
    fn refuse_schema1(
        &self,
        endpoint: &Endpoint,
        operation: &Operation,
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let sent = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !sent.trim().starts_with(media_type::DOCKER_SCHEMA1) {
            return Ok(());
        }
        let at = At { place: self.place(endpoint), ..self.at(operation) };
        Err(RegistryError::Protocol { at, what: ManifestError::Schema1.to_string() })
    }

    /// Does not ask the server at this origin again within this pull, because its content was wrong. False,
    /// and without effect, when nobody else is left to be asked.
    pub fn distrust(&self, origin: &str) -> bool {
        let all = self.client.inner.hosts.endpoints(&self.host, Capability::Pull).unwrap_or_default();
        // The other scheme of a server is no other server.
        let others = |e: &Endpoint| server(&e.origin) != server(origin) && !self.is_distrusted(&e.origin);
        let left = all.iter().any(others);
        if left {
            let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
            distrusted.insert(server(origin).to_owned());
        }
        left
    }

    fn is_distrusted(&self, origin: &str) -> bool {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).contains(server(origin))
    }

    /// A small blob as a whole (configurations), verified, never larger than `limit` bytes.
    pub async fn blob_bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let at = self.at(&Operation::Blob(descriptor.digest.clone()));
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { at, limit });
        }
        let timeout = self.client.inner.config.document_timeout;
        let late = || RegistryError::Broken {
            at: at.clone(),
            received: 0,
            source: format!("not complete after {} s", timeout.as_secs_f64()).into(),
        };
        let whole = tokio::time::timeout(timeout, self.whole_blob(descriptor, &at));
        whole.await.unwrap_or_else(|_| Err(late()))
    }

    async fn whole_blob(&self, descriptor: &Descriptor, at: &At) -> Result<Vec<u8>, RegistryError> {
        // It does not queue behind the layers of other pulls: its time runs.
        let mut stream = BlobStream::open(self.clone(), descriptor.clone(), 0, false).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or_default());
        let mut verifier = Verifier::new(descriptor.digest.clone(), Some(descriptor.size));
        while let Some(chunk) = stream.next().await? {
            verifier.update(&chunk).map_err(|source| RegistryError::Verify { at: at.clone(), source })?;
            bytes.extend_from_slice(&chunk);
        }
        verifier.finish().map_err(|source| RegistryError::Verify { at: at.clone(), source })?;
        Ok(bytes)
    }

    /// A blob from byte `offset` on. The stream gives exactly the bytes that the descriptor promises,
    /// resuming after cuts, or an error; it does **not** verify the digest (the caller hashes anyway).
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, RegistryError> {
        BlobStream::open(self.clone(), descriptor.clone(), offset, true).await
    }
}

/// An origin without its scheme.
fn server(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, server)| server)
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, http::HeaderValue::from_static(media_type::ACCEPT));
    headers
}

impl Session {
    fn call(&self, operation: Operation, method: Method, path: String, headers: HeaderMap) -> Call {
        Call { operation, method, path: format!("/{}/{path}", self.path), headers, bulk: false }
    }

    /// Names the request in errors.
    fn at(&self, operation: &Operation) -> At {
        At {
            host: self.host.clone(),
            repository: self.path.clone(),
            operation: operation.clone(),
            place: None,
        }
    }
}

/// For the fuzzer: everything that is private about challenges.
pub(crate) fn fuzz_challenge(text: &str) {
    let found = challenge::parse(text);
    assert!(found.len() <= text.len() + 1, "every challenge has a name");
    if let Ok(value) = http::HeaderValue::from_str(text) {
        let headers = HeaderMap::from_iter([(http::header::WWW_AUTHENTICATE, value)]);
        assert_eq!(challenge::of(&headers).is_some(), !found.is_empty());
    }
}

//! The client for registries (OCI distribution-spec, Docker registry v2).
//!
//! One [`Client`] serves the whole process; a [`Session`] is one pull's view of one repository with one
//! set of credentials. Where a repository's requests go is decided by [`Hosts`], so that mirrors
//! have a place to be added.

mod auth;
mod blob;
mod challenge;
mod config;
mod error;
mod hosts;
mod request;
mod resolve;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method};

pub use auth::Credentials;
pub use blob::BlobStream;
pub use config::ClientConfig;
pub use error::{At, Cause, Operation, RegistryError};
pub use hosts::{Capability, Endpoint, Hosts, StaticHosts};
pub use resolve::{ResolveError, Resolver};

use crate::digest::{Digest, Verifier};
use crate::manifest::{Descriptor, MAX_MANIFEST, media_type};
use crate::reference::Reference;
use auth::TokenCache;
use request::{Call, read_bounded};

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
    resolver: Arc<Resolver>,
    tokens: TokenCache,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; certificates are read now, connections are made when needed.
    pub fn new(config: ClientConfig) -> Result<Self, RegistryError> {
        let hosts = Arc::new(StaticHosts::new(config.insecure.clone()));
        Self::with_hosts(config, hosts)
    }

    /// A client whose endpoints are decided elsewhere (mirrors).
    pub fn with_hosts(config: ClientConfig, hosts: Arc<dyn Hosts>) -> Result<Self, RegistryError> {
        let resolver = Arc::new(Resolver::from_system());
        let client = Self {
            inner: Arc::new(Inner {
                config,
                hosts,
                pools: Mutex::new(HashMap::new()),
                resolver,
                tokens: TokenCache::default(),
            }),
        };
        // A broken CA file is a mistake to hear about at the start, not at the first pull.
        client.pool(tls::Variant::Verified)?;
        Ok(client)
    }

    /// One repository, seen with these credentials.
    pub fn session(&self, reference: &Reference, credentials: Credentials) -> Session {
        Session {
            client: self.clone(),
            host: reference.host().to_owned(),
            path: reference.path().to_owned(),
            credentials,
        }
    }

    fn pool(&self, variant: tls::Variant) -> Result<reqwest::Client, RegistryError> {
        let mut pools = self.inner.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pool) = pools.get(&variant) {
            return Ok(pool.clone());
        }
        let pool = tls::pool(&self.inner.config, variant, self.inner.resolver.clone())?;
        pools.insert(variant, pool.clone());
        Ok(pool)
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
}

impl Session {
    /// The digest that a tag means now, without fetching anything else (IMG-53). `None` when the registry
    /// does not say it in a header; then fetch the manifest.
    pub async fn resolve(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let call = self.call(
            Operation::Manifest(tag.to_owned()),
            Method::HEAD,
            format!("manifests/{tag}"),
            accept(),
        );
        let response = self.send(call, Capability::Resolve).await?;
        let digest = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        Ok(digest.and_then(|d| d.parse().ok()))
    }

    /// A manifest or index by tag or digest. By digest the content is verified.
    pub async fn manifest(&self, version: &str) -> Result<FetchedManifest, RegistryError> {
        let operation = Operation::Manifest(version.to_owned());
        let call = self.call(operation.clone(), Method::GET, format!("manifests/{version}"), accept());
        let response = self.send(call, Capability::Pull).await?;
        let media_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(|t| t.trim().to_owned());
        let at = self.at(&operation);
        let bytes = read_bounded(response, MAX_MANIFEST, &at).await?;
        let expected: Option<Digest> = version.parse().ok();
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

    /// A small blob as a whole (configurations), verified, never larger than `limit` bytes.
    pub async fn blob_bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let at = self.at(&Operation::Blob(descriptor.digest.clone()));
        if descriptor.size > limit {
            return Err(RegistryError::TooLarge { at, limit });
        }
        let mut stream = self.blob(descriptor, 0).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or_default());
        let mut verifier = Verifier::new(descriptor.digest.clone(), Some(descriptor.size));
        while let Some(chunk) = stream.next().await? {
            verifier.update(&chunk).map_err(|source| RegistryError::Verify { at: at.clone(), source })?;
            bytes.extend_from_slice(&chunk);
        }
        verifier.finish().map_err(|source| RegistryError::Verify { at, source })?;
        Ok(bytes)
    }

    /// A blob from byte `offset` on. The stream gives exactly the bytes that the descriptor promises,
    /// resuming after cuts, or an error; it does **not** verify the digest (the caller hashes anyway).
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, RegistryError> {
        BlobStream::open(self.clone(), descriptor.clone(), offset).await
    }
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, http::HeaderValue::from_static(media_type::ACCEPT));
    headers
}

impl Session {
    fn call(&self, operation: Operation, method: Method, path: String, headers: HeaderMap) -> Call {
        Call { operation, method, path: format!("/v2/{}/{path}", self.path), headers }
    }

    /// Names the request in errors.
    fn at(&self, operation: &Operation) -> error::At {
        error::At { host: self.host.clone(), repository: self.path.clone(), operation: operation.clone() }
    }
}

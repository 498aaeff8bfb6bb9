//! The Kubernetes API over HTTP: discovery, REST, watch, admission, authentication, authorization.
//!
//! One request's way: [`router`] (audit id, panics, limits) -> [`authentication`] -> impersonation ->
//! [`authorization`] -> the resource's handler ([`handlers`], [`subresources`]) -> [`admission`] ->
//! [`registry`] -> the store. What is written comes back through one watch of the store into the caches of
//! [`watch`], from which all watchers and lists are served.

// A Status is the answer of a request that fails: one a request, and boxing it would only move it.
#![allow(clippy::result_large_err)]

mod bootstrap;
mod cidr;
mod context;
mod error;
mod negotiate;
mod protobuf;
mod query;
mod request_info;
mod respond;
mod user;

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod discovery;
pub mod handlers;
pub mod health;
pub mod metrics_api;
pub mod openapi;
pub mod pki;
pub mod proxy;
pub mod registry;
pub mod reviews;
pub mod router;
pub mod server;
pub mod subresources;
pub mod tokens;
pub mod version;
pub mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use sampan_store::Store;

pub use cidr::Cidr;
pub use context::{RequestContext, Warnings};
pub use error::Error;
pub use pki::{CertifiedKeyPem, Pki};
pub use query::Query;
pub use request_info::RequestInfo;
pub use respond::{Body, Response};
pub use user::UserInfo;

/// How an API server is set up.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Certificates and keys.
    pub pki: Pki,
    /// Addresses for Services; its first one is the Service `kubernetes`.
    pub service_cidr: Cidr,
    /// Ports for Services of type NodePort, both ends included.
    pub node_ports: (u16, u16),
    /// The DNS domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// Where this server is reached: the endpoint of the Service `kubernetes`.
    pub advertise: (IpAddr, u16),
    /// Static bearer tokens (upstream's `--token-auth-file`), if any.
    pub token_auth_file: Option<std::path::PathBuf>,
    /// Which admission plugins run beside those that are on by default, and which of those do not.
    pub admission: admission::AdmissionConfig,
}

/// A running API server: what every handler works with.
pub struct ApiServer {
    /// How it was set up.
    pub config: Config,
    /// Objects: reading, writing and watching them.
    pub registry: registry::Registry,
    /// The admission chain.
    pub admission: admission::Chain,
    /// What authentication keeps between requests.
    pub authentication: authentication::Authentication,
    /// What authorization keeps between requests.
    pub authorization: authorization::Authorization,
    /// Issues and checks service account tokens.
    pub tokens: tokens::Tokens,
    /// Reaches kubelets, for logs, exec and the like.
    pub proxy: proxy::Proxy,
    /// What `kubectl top` is answered from.
    pub metrics_api: metrics_api::MetricsApi,
    /// What the doors count, and whether they are closing.
    pub serving: server::Serving,
}

impl ApiServer {
    /// Starts the server's inner parts: caches, default objects, background work. It serves nothing until
    /// [`ApiServer::serve`] or [`ApiServer::client`]. Background work ends when the server is dropped.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(config: Config) -> Result<Arc<Self>, Error> {
        let registry = registry::Registry::start(&config).await?;
        let server = Arc::new(Self {
            admission: admission::Chain::new(&config.admission)?,
            authentication: authentication::Authentication::new(&config)?,
            authorization: authorization::Authorization::new(&config)?,
            tokens: tokens::Tokens::new(&config)?,
            proxy: proxy::Proxy::new(&config)?,
            metrics_api: metrics_api::MetricsApi::default(),
            serving: server::Serving::default(),
            registry,
            config,
        });
        server.authorization.start().await?;
        bootstrap::run(&server).await?;
        Ok(server)
    }
}

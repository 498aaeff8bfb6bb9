//! What the API server passes on: to kubelets (logs, exec, attach, port-forward, `nodes/proxy`) and to pods and
//! Services over HTTP.

mod backend;
mod log;
mod node;
mod pass;
mod pod;
mod service;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::ClientConfig;
use sampan_api::{Status, scheme};
use serde_json::Value;

pub use log::pod_log;
pub(crate) use node::kubelet_json;
pub use node::node_proxy;
pub use pod::pod_proxy;
pub use service::service_proxy;
pub use stream::{pod_attach, pod_exec, pod_portforward};

use crate::{ApiServer, Config, Error};

/// With which keys kubelets and others are called.
pub struct Proxy {
    /// Shows the API server's client certificate and trusts our authority.
    kubelet: Arc<ClientConfig>,
    /// Shows the certificate and trusts anybody (`insecureSkipTLSVerifyBackend`).
    unverified_kubelet: Arc<ClientConfig>,
    /// Shows nothing and trusts anybody: pods and Services that speak HTTPS, as upstream.
    anybody: Arc<ClientConfig>,
}

impl Proxy {
    /// Prepares the TLS settings.
    ///
    /// # Errors
    /// When the client certificate cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let pki = &config.pki;
        Ok(Self {
            kubelet: backend::tls(Some(pki.apiserver_kubelet_client()), Some(pki.ca_pem()))?,
            unverified_kubelet: backend::tls(Some(pki.apiserver_kubelet_client()), None)?,
            anybody: backend::tls(None, None)?,
        })
    }
}

/// A core object, or 404.
async fn get(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let not_found = || Status::not_found("", plural, name);
    let resource = scheme::find("", "v1", plural).ok_or_else(not_found)?;
    server.registry.get(resource, namespace, name).await?.ok_or_else(not_found)
}

/// `scheme:name:port`, `name:port` or `name`; a scheme alone does not occur.
fn split_scheme_name_port(id: &str) -> Option<(&str, &str, &str)> {
    let pieces: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match pieces.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some((scheme, name, port))
}

//! The certificates and keys of one cluster of one machine: a certificate authority, what it has signed, and
//! the key that signs ServiceAccount tokens.
//!
//! Everything lives in one directory and is kept over restarts. A certificate is issued again, under the same
//! key, when less than 30 days remain or when what it must say has changed; because keys are never replaced and
//! a key is always on disk before its certificate, a crash at any point leaves files from which the next start
//! continues. What cannot be continued from (a damaged file, a certificate without its key) is an error that
//! names the file and the way out: silently making a new authority would cut off every client.

mod certificate;
mod error;
mod files;
mod issue;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use certificate::{Authority, Leaf};
pub use error::PkiError;
pub use issue::{
    Identity, is_for_servers, issue_kubeconfig, names, node_of, read_pair, self_signed, validity, write_pair,
};
pub use request::make_request;
pub(crate) use request::{Requested, SigningRequest};

/// What the certificates must say.
#[derive(Clone, Debug)]
pub struct PkiConfig {
    /// The node's name: the kubelet's identity is `system:node:NAME`.
    pub node_name: String,
    /// Further host names under which the API server is reached.
    pub hostnames: Vec<String>,
    /// Further addresses of the API server and the kubelet (the node's address).
    pub ips: Vec<IpAddr>,
    /// The address of the Service `default/kubernetes`: the first one of the service range.
    pub service_ip: Option<IpAddr>,
    /// The cluster's domain, `cluster.local` by default.
    pub cluster_domain: String,
}

impl PkiConfig {
    /// The API server's names and addresses, those that every cluster has included.
    fn apiserver_names(&self) -> BTreeSet<String> {
        let domain = &self.cluster_domain;
        let mut names: BTreeSet<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .into();
        names.insert(format!("kubernetes.default.svc.{domain}"));
        names.insert(self.node_name.clone());
        names.extend(self.hostnames.iter().cloned());
        names.extend(self.ips.iter().chain(&self.service_ip).map(ToString::to_string));
        names
    }

    fn kubelet_names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        names.insert(self.node_name.clone());
        names.extend(self.hostnames.iter().cloned());
        names.extend(self.ips.iter().map(ToString::to_string));
        names
    }
}

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub struct CertifiedKeyPem {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for CertifiedKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifiedKeyPem").finish_non_exhaustive()
    }
}

impl CertifiedKeyPem {
    /// The two in the form that rustls takes.
    ///
    /// # Errors
    /// When either is not PEM of the expected kind.
    pub fn to_rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| PkiError::Pem { what: "certificate", source })?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|source| PkiError::Pem { what: "private key", source })?;
        Ok((chain, key))
    }
}

/// The cluster's certificates and keys.
#[derive(Clone, Debug)]
pub struct Pki {
    directory: PathBuf,
    ca: String,
    serving: CertifiedKeyPem,
    admin: CertifiedKeyPem,
    kubelet_client: CertifiedKeyPem,
    kubelet_serving: CertifiedKeyPem,
    apiserver_kubelet_client: CertifiedKeyPem,
    service_account_key: String,
}

impl Pki {
    /// Reads what `directory` holds, makes what is missing, and renews what is about to run out.
    ///
    /// # Errors
    /// When a file cannot be read or written, or when it is damaged; the message says which and what to do.
    pub fn ensure(directory: &Path, config: &PkiConfig) -> Result<Self, PkiError> {
        files::make_directory(directory)?;
        let authority = Authority::ensure(directory)?;
        let issue = |leaf: Leaf<'_>| authority.ensure_leaf(directory, &leaf);
        let node_user = format!("system:node:{}", config.node_name);
        let none = BTreeSet::new();
        Ok(Self {
            serving: issue(Leaf {
                file: "apiserver",
                common_name: "kube-apiserver",
                organization: None,
                usages: &[ServerAuth],
                names: &config.apiserver_names(),
            })?,
            admin: issue(Leaf {
                file: "admin",
                common_name: "kubernetes-admin",
                organization: Some("system:masters"),
                usages: &[ClientAuth],
                names: &none,
            })?,
            kubelet_client: issue(Leaf {
                file: "kubelet-client",
                common_name: &node_user,
                organization: Some("system:nodes"),
                usages: &[ClientAuth],
                names: &none,
            })?,
            kubelet_serving: issue(Leaf {
                file: "kubelet",
                common_name: &node_user,
                organization: Some("system:nodes"),
                usages: &[ServerAuth],
                names: &config.kubelet_names(),
            })?,
            apiserver_kubelet_client: issue(Leaf {
                file: "apiserver-kubelet-client",
                common_name: "kube-apiserver-kubelet-client",
                organization: Some("system:masters"),
                usages: &[ClientAuth],
                names: &none,
            })?,
            service_account_key: certificate::ensure_key(&directory.join("sa.key"))?.serialize_pem(),
            ca: authority.certificate_pem().to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The authority's certificate, PEM: what clients trust, and what `kube-root-ca.crt` holds.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// What the API server shows to its clients.
    pub fn serving(&self) -> &CertifiedKeyPem {
        &self.serving
    }

    /// `kubernetes-admin` of the group `system:masters`.
    pub fn admin(&self) -> &CertifiedKeyPem {
        &self.admin
    }

    /// The kubelet's own identity, `system:node:NAME`.
    pub fn kubelet_client(&self) -> &CertifiedKeyPem {
        &self.kubelet_client
    }

    /// What the kubelet shows on its port.
    pub fn kubelet_serving(&self) -> &CertifiedKeyPem {
        &self.kubelet_serving
    }

    /// With what the API server calls the kubelet.
    pub fn apiserver_kubelet_client(&self) -> &CertifiedKeyPem {
        &self.apiserver_kubelet_client
    }

    /// The private key that signs ServiceAccount tokens, PKCS #8 in PEM (ECDSA P-256).
    pub fn service_account_key(&self) -> &str {
        &self.service_account_key
    }

    /// A kubeconfig (YAML) with the administrator's certificate for the API server at `server_url`.
    pub fn admin_kubeconfig(&self, server_url: &str) -> String {
        self.kubeconfig(server_url, "kubernetes-admin", &self.admin)
    }

    /// A kubeconfig (YAML) for the identity `user`.
    pub fn kubeconfig(&self, server_url: &str, user: &str, identity: &CertifiedKeyPem) -> String {
        kubeconfig(&self.ca, server_url, user, identity)
    }
}

fn kubeconfig(ca: &str, server_url: &str, user: &str, identity: &CertifiedKeyPem) -> String {
    let (ca, certificate, key) =
        (STANDARD.encode(ca), STANDARD.encode(&identity.certificate), STANDARD.encode(&identity.key));
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {user}@sampan\nclusters:\n- name: sampan\n  cluster:\n    \
         server: {server_url}\n    certificate-authority-data: {ca}\ncontexts:\n- name: {user}@sampan\n  context:\n    \
         cluster: sampan\n    user: {user}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {certificate}\n    \
         client-key-data: {key}\n"
    )
}

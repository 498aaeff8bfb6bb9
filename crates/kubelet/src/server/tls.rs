//! TLS of the kubelet's port, and who the client certificate says the client is.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::config::{Serving, ServingIdentity};
use crate::error::Error;

/// A client as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

pub(super) fn server_config(
    serving: &Serving,
    identity: &ServingIdentity,
) -> Result<Arc<rustls::ServerConfig>, Error> {
    let tls = |what: &'static str| {
        move |source: Box<dyn std::error::Error + Send + Sync>| Error::Tls { what, source }
    };
    let certificates = |pem: &[u8], what| {
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| tls(what)(Box::new(error)))
    };
    let chain = certificates(&identity.certificate_pem, "serving certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&identity.private_key_pem)
        .map_err(|error| tls("serving key")(Box::new(error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&serving.client_ca_pem, "client CA")? {
        roots.add(certificate).map_err(|error| tls("client CA")(Box::new(error)))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Bearer tokens are an alternative, so a certificate is not required here.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls("client CA")(Box::new(error)))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls("TLS versions")(Box::new(error)))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| tls("serving certificate and key")(Box::new(error)))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The user of the (verified) client certificate: common name and organisations.
pub(super) fn peer_user(stream: &TlsStream<TcpStream>) -> Option<User> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some(User { name, groups })
}

//! Connection pools: TLS by rustls with ring, names by our own resolver.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::ClientConfig;
use super::error::RegistryError;
use super::resolve::Resolver;

/// What endpoints differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Variant {
    /// Certificates are checked; proxies of the environment are used.
    Verified,
    /// Certificates are checked; no proxy (loopback).
    VerifiedDirect,
    /// Certificates are not checked.
    Insecure,
    /// Neither checks nor proxies.
    InsecureDirect,
}

impl Variant {
    pub(super) fn of(skip_verify: bool, direct: bool) -> Self {
        match (skip_verify, direct) {
            (false, false) => Self::Verified,
            (false, true) => Self::VerifiedDirect,
            (true, false) => Self::Insecure,
            (true, true) => Self::InsecureDirect,
        }
    }
}

pub(super) fn pool(
    config: &ClientConfig,
    variant: Variant,
    resolver: Arc<Resolver>,
) -> Result<reqwest::Client, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| setup("TLS", e))?;
    let tls = match variant {
        Variant::Verified | Variant::VerifiedDirect => {
            builder.with_root_certificates(roots(config)?).with_no_client_auth()
        }
        Variant::Insecure | Variant::InsecureDirect => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    let mut client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.stall_timeout)
        .http2_adaptive_window(true)
        .pool_idle_timeout(std::time::Duration::from_secs(30))
        .user_agent(&config.user_agent);
    if matches!(variant, Variant::VerifiedDirect | Variant::InsecureDirect) {
        client = client.no_proxy();
    }
    client.build().map_err(|e| setup("HTTP client", e))
}

fn roots(config: &ClientConfig) -> Result<RootCertStore, RegistryError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        tracing::debug!(%error, "a system certificate cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    for path in &config.extra_ca {
        let what = || format!("certificate authorities in {}", path.display());
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| setup(&what(), e))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| setup(&what(), e))?;
            roots.add(certificate).map_err(|e| setup(&what(), e))?;
        }
    }
    Ok(roots)
}

fn setup(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
    RegistryError::Setup { what: format!("set up {what}"), source: Box::new(source) }
}

/// For hosts configured as insecure: the handshake is checked, the certificate is not.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

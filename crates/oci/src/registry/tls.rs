//! Connection pools: TLS by rustls with ring, names by our own resolver.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{ClientConfig, Proxies};
use super::error::RegistryError;
use super::hosts::EndpointTls;
use super::resolve::Resolver;

/// What connections differ in; those of one variant share a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Variant {
    /// Certificates are not checked.
    pub(super) insecure: bool,
    /// No proxy (loopback).
    pub(super) direct: bool,
    /// Authorities and certificate of an endpoint.
    pub(super) tls: Option<Arc<EndpointTls>>,
    /// Whether the certificate in `tls` is shown: to the endpoint itself, not to where it redirects.
    pub(super) show: bool,
    /// Time to connect, when the endpoint has its own.
    pub(super) connect_timeout: Option<Duration>,
}

pub(super) fn pool(
    config: &ClientConfig,
    variant: &Variant,
    resolver: Arc<Resolver>,
) -> Result<reqwest::Client, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| setup("TLS", e))?;
    let builder = if variant.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(config, variant.tls.as_deref())?)
    };
    let client = variant.tls.as_ref().filter(|_| variant.show).and_then(|tls| tls.client.as_ref());
    let mut tls = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|e| setup("the client certificate", e))?;
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|e| setup("the client certificate's key", e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| setup("the client certificate", e))?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(resolver)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(variant.connect_timeout.unwrap_or(config.connect_timeout))
        .read_timeout(config.stall_timeout)
        .http2_adaptive_window(true)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(config.connections_per_host)
        .user_agent(&config.user_agent);
    if variant.direct {
        client = client.no_proxy();
    } else if let Proxies::Fixed { http, https, direct } = &config.proxies {
        client = client.no_proxy();
        let direct = reqwest::NoProxy::from_string(direct);
        let proxies = [http.as_ref().map(reqwest::Proxy::http), https.as_ref().map(reqwest::Proxy::https)];
        for proxy in proxies.into_iter().flatten() {
            client = client.proxy(proxy.map_err(|e| setup("the proxy", e))?.no_proxy(direct.clone()));
        }
    }
    client.build().map_err(|e| setup("HTTP client", e))
}

fn roots(config: &ClientConfig, own: Option<&EndpointTls>) -> Result<RootCertStore, RegistryError> {
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
    for pem in own.iter().flat_map(|tls| &tls.authorities) {
        let what = "the certificate authorities of a registry host";
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| setup(what, e))?;
            roots.add(certificate).map_err(|e| setup(what, e))?;
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

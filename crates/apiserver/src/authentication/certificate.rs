//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The handshake takes any certificate whose key the peer holds; whether our authority stands behind it is found
//! out afterwards. So a stranger's certificate ends in a readable 401 and not in a TLS alert, as with upstream.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Error;
use crate::user::{AUTHENTICATED, UserInfo};

/// A certificate that our authority vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it names.
    pub user: UserInfo,
    /// Until when it holds, Unix seconds: a connection may outlive it.
    pub expires_at: i64,
}

/// Verifies certificates against an authority.
#[derive(Clone)]
pub struct Verifier(Arc<dyn ClientCertVerifier>);

impl Verifier {
    /// Trusts the authority in `ca_pem`.
    ///
    /// # Errors
    /// When that is no certificate.
    pub fn new(ca_pem: &str) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Identity {
            operation: "trust the certificate authority".into(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|e| failed(Box::new(e)))?;
            roots.add(certificate).map_err(|e| failed(Box::new(e)))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|e| failed(Box::new(e)))?;
        Ok(Self(verifier))
    }

    /// For the handshake: asks for a certificate and leaves the judgement to [`Verifier::verify`].
    pub(crate) fn handshake(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(TrustLater(self.0.clone()))
    }

    /// Who stands behind a certificate chain.
    ///
    /// # Errors
    /// Why it is not to be trusted, in words.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<ClientCertificate, String> {
        let (leaf, intermediates) = chain.split_first().ok_or("no certificate")?;
        self.0.verify_client_cert(leaf, intermediates, UnixTime::now()).map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let text =
            |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
        let subject = certificate.subject();
        let username = subject.iter_common_name().find_map(text).filter(|name| !name.is_empty());
        let mut groups: Vec<String> = subject.iter_organization().filter_map(text).collect();
        groups.push(AUTHENTICATED.to_owned());
        let digest: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        let credential =
            ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={digest}")]);
        Ok(ClientCertificate {
            user: UserInfo {
                username: username.ok_or("the certificate has no common name")?,
                uid: String::new(),
                groups,
                extra: BTreeMap::from([credential]),
            },
            expires_at: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Takes every certificate, but makes sure that the peer holds its key.
#[derive(Debug)]
struct TrustLater(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for TrustLater {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

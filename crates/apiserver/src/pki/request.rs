//! Certificates for keys that somebody else holds: PKCS #10 requests, and what our authority makes of them.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};

use super::PkiError;
use super::certificate::{Authority, LEAF_LIFETIME, request_params};

/// The shortest life that can be asked for, as upstream.
const SHORTEST: Duration = Duration::from_secs(600);
/// Requests are small.
const MAX_BYTES: usize = 64 << 10;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// Who somebody is.
    Client,
    /// What somebody shows on a port.
    Server,
}

/// What a request says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    /// Host names and addresses.
    pub(crate) names: Vec<String>,
}

/// A request whose signature holds: who made it has the key.
pub(crate) struct SigningRequest {
    params: CertificateSigningRequestParams,
}

impl SigningRequest {
    /// Reads PEM in base64, as the API's objects hold it.
    pub(crate) fn from_base64(encoded: &str) -> Result<Self, PkiError> {
        let unreadable = || PkiError::Request("it is no PKCS #10 request in PEM whose signature holds");
        if encoded.len() > MAX_BYTES {
            return Err(PkiError::Request("it is too long"));
        }
        let pem = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let params = CertificateSigningRequestParams::from_pem(&pem.ok_or_else(unreadable)?);
        Ok(Self { params: params.map_err(|_| unreadable())? })
    }

    /// What it asks for.
    pub(crate) fn asks(&self) -> Asked {
        let text = |value: &DnValue| match value {
            DnValue::Utf8String(text) => text.clone(),
            DnValue::PrintableString(text) => text.as_str().to_owned(),
            _ => String::new(),
        };
        let params = &self.params.params;
        let name = |san: &SanType| match san {
            SanType::DnsName(name) => name.as_str().to_owned(),
            SanType::IpAddress(address) => address.to_string(),
            // Not a node's: nobody is called so.
            _ => String::new(),
        };
        Asked {
            common_name: params.distinguished_name.get(&DnType::CommonName).map(text).unwrap_or_default(),
            organizations: params
                .distinguished_name
                .iter()
                .filter(|(kind, _)| **kind == DnType::OrganizationName)
                .map(|(_, value)| text(value))
                .collect(),
            names: params.subject_alt_names.iter().map(name).collect(),
        }
    }

    /// A certificate of the authority in `directory`, for `seconds` at most; in base64 of PEM. Of the request's own
    /// wishes only subject, names and key go in.
    pub(crate) fn sign(
        &self,
        directory: &Path,
        requested: Requested,
        seconds: Option<u64>,
    ) -> Result<String, PkiError> {
        let asked = self.asks();
        let lifetime = seconds.map_or(LEAF_LIFETIME, Duration::from_secs).clamp(SHORTEST, LEAF_LIFETIME);
        let usage = match requested {
            Requested::Client => ClientAuth,
            Requested::Server => ServerAuth,
        };
        let organization = asked.organizations.first().map(String::as_str);
        let failed = |source| PkiError::Issue { subject: asked.common_name.clone(), source };
        let params = request_params(&asked.common_name, organization, &asked.names, usage, lifetime);
        let pem = Authority::open(directory)?.sign(params.map_err(failed)?, &self.params.public_key);
        Ok(STANDARD.encode(pem.map_err(failed)?))
    }
}

/// A new key and the request (PEM) for a certificate over it: for who renews its own identity.
///
/// # Errors
/// When a name cannot stand in a certificate.
pub fn make_request(
    common_name: &str,
    organization: &str,
    names: Vec<String>,
) -> Result<(String, String), PkiError> {
    let failed = |source| PkiError::Issue { subject: common_name.to_owned(), source };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
    Ok((key.serialize_pem(), request))
}

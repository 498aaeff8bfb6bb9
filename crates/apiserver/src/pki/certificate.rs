//! The authority and what it signs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

use super::files::{self, PRIVATE, PUBLIC};
use super::{CertifiedKeyPem, PkiError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// What a certificate is good for, unless less is asked for.
pub(super) const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A certificate with less than this left is issued again.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks differ: a certificate is valid from a little before it was made.
const BACKDATED: Duration = Duration::from_secs(5 * 60);
const CA_NAME: &str = "sampan-ca";

/// What one certificate below the authority says.
pub(super) struct Leaf<'a> {
    /// Base of the two file names.
    pub(super) file: &'a str,
    pub(super) common_name: &'a str,
    pub(super) organization: Option<&'a str>,
    pub(super) usages: &'a [ExtendedKeyUsagePurpose],
    /// Host names and addresses.
    pub(super) names: &'a BTreeSet<String>,
}

/// The authority: signs leaves.
pub(super) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The key in `path`, made when there is none.
pub(super) fn ensure_key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(text) = files::read(path, PRIVATE)? {
        return KeyPair::from_pkcs8_pem_and_sign_algo(&text, &PKCS_ECDSA_P256_SHA256).map_err(|source| {
            damaged(path, format!("not an ECDSA P-256 private key in PKCS #8 PEM ({source})"))
        });
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Issue { subject: path.display().to_string(), source })?;
    files::write(path, &key.serialize_pem(), PRIVATE)?;
    Ok(key)
}

impl Authority {
    pub(super) fn ensure(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let existing = existing(&certificate_path, &key_path)?;
        let key = ensure_key(&key_path)?;
        let params = authority_params()?;
        let reusable = match &existing {
            Some(text) => check(text, &certificate_path, &key)?.remaining > RENEW_BEFORE,
            None => false,
        };
        let certificate = match existing {
            Some(text) if reusable => text,
            // The same name and key: everything signed before still verifies.
            _ => {
                let certificate = params
                    .self_signed(&key)
                    .map_err(|source| PkiError::Issue { subject: CA_NAME.into(), source })?
                    .pem();
                files::write(&certificate_path, &certificate, PUBLIC)?;
                certificate
            }
        };
        Self::of(certificate, key, &certificate_path)
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The authority of a server that has been started before.
    pub(super) fn open(directory: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let Some(certificate) = existing(&certificate_path, &key_path)? else {
            return Err(PkiError::NoAuthority { directory: directory.to_owned() });
        };
        let key = ensure_key(&key_path)?;
        check(&certificate, &certificate_path, &key)?;
        Self::of(certificate, key, &certificate_path)
    }

    fn of(certificate: String, key: KeyPair, path: &Path) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .map_err(|source| damaged(path, format!("not a certificate authority ({source})")))?;
        Ok(Self { certificate, issuer })
    }

    /// A new certificate under a new key, in memory only.
    pub(super) fn issue(
        &self,
        leaf: &Leaf<'_>,
        lifetime: Option<Duration>,
    ) -> Result<CertifiedKeyPem, PkiError> {
        let failed = |source| PkiError::Issue { subject: leaf.common_name.to_owned(), source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let params = leaf_params(leaf).map_err(failed)?;
        let params = limited(params, lifetime.unwrap_or(LEAF_LIFETIME).min(LEAF_LIFETIME));
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(CertifiedKeyPem { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Signs a certificate over somebody else's key; PEM.
    pub(super) fn sign(
        &self,
        params: CertificateParams,
        key: &rcgen::PublicKey,
    ) -> Result<String, rcgen::Error> {
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// The certificate from its files when it is still good, else a new one under the same key.
    pub(super) fn ensure_leaf(&self, directory: &Path, leaf: &Leaf<'_>) -> Result<CertifiedKeyPem, PkiError> {
        let ours = |text: &str| signed_by(text, &self.certificate);
        ensure_leaf(directory, leaf, ours, |params, key| params.signed_by(key, &self.issuer))
    }
}

/// The certificate that signs itself, from its files when it is still good, else a new one under the same key.
pub(super) fn ensure_self_signed(directory: &Path, leaf: &Leaf<'_>) -> Result<CertifiedKeyPem, PkiError> {
    ensure_leaf(directory, leaf, |text| signed_by(text, text), |params, key| params.self_signed(key))
}

fn ensure_leaf(
    directory: &Path,
    leaf: &Leaf<'_>,
    is_ours: impl FnOnce(&str) -> bool,
    sign: impl FnOnce(CertificateParams, &KeyPair) -> Result<rcgen::Certificate, rcgen::Error>,
) -> Result<CertifiedKeyPem, PkiError> {
    let certificate_path = directory.join(format!("{}.crt", leaf.file));
    let key_path = directory.join(format!("{}.key", leaf.file));
    let existing = existing(&certificate_path, &key_path)?;
    let key = ensure_key(&key_path)?;
    if let Some(text) = existing {
        let found = check(&text, &certificate_path, &key)?;
        if found.remaining > RENEW_BEFORE
            && found.subject == (Some(leaf.common_name.to_owned()), leaf.organization.map(str::to_owned))
            && found.names == *leaf.names
            && is_ours(&text)
        {
            return Ok(CertifiedKeyPem { certificate: text, key: key.serialize_pem() });
        }
        tracing::info!(certificate = %certificate_path.display(), "renewing certificate");
    }
    let failed = |source| PkiError::Issue { subject: leaf.common_name.to_owned(), source };
    let certificate = leaf_params(leaf).and_then(|params| sign(params, &key)).map_err(failed)?.pem();
    files::write(&certificate_path, &certificate, PUBLIC)?;
    Ok(CertifiedKeyPem { certificate, key: key.serialize_pem() })
}

/// The certificate's text when it is there. It must not be there without its key: keys are written first and
/// never replaced, so a lone certificate means that somebody removed or lost the key.
fn existing(certificate: &Path, key: &Path) -> Result<Option<String>, PkiError> {
    let text = files::read(certificate, PUBLIC)?;
    if text.is_some() && !key.exists() {
        return Err(damaged(
            key,
            format!("it is missing, but its certificate {} exists", certificate.display()),
        ));
    }
    Ok(text)
}

fn damaged(path: &Path, problem: String) -> PkiError {
    let base = path.with_extension("");
    let name = base.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let pair = |name: &str| {
        let file = |extension: &str| PathBuf::from(path).with_file_name(format!("{name}.{extension}"));
        format!("{} and {}", file("crt").display(), file("key").display())
    };
    let delete = match name.as_str() {
        "ca" => format!(
            "the whole directory {} (every kubeconfig and certificate made so far stops working)",
            path.parent().unwrap_or(path).display()
        ),
        "sa" => format!("{} (every ServiceAccount token made so far stops working)", path.display()),
        other => pair(other),
    };
    PkiError::Damaged { path: path.to_owned(), problem, delete }
}

struct Found {
    remaining: Duration,
    subject: (Option<String>, Option<String>),
    names: BTreeSet<String>,
}

/// Reads a certificate and makes sure that it belongs to `key`.
fn check(text: &str, path: &Path, key: &KeyPair) -> Result<Found, PkiError> {
    let (_, pem) = parse_x509_pem(text.as_bytes())
        .map_err(|source| damaged(path, format!("not a certificate in PEM ({source})")))?;
    let certificate =
        pem.parse_x509().map_err(|source| damaged(path, format!("not an X.509 certificate ({source})")))?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(damaged(path, "it does not belong to the private key beside it".into()));
    }
    let expires = UNIX_EPOCH
        + Duration::from_secs(
            u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default(),
        );
    let subject = certificate.subject();
    let text_of = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        value.and_then(|value| value.as_str().ok()).map(str::to_owned)
    };
    Ok(Found {
        remaining: expires.duration_since(SystemTime::now()).unwrap_or_default(),
        subject: (text_of(subject.iter_common_name().next()), text_of(subject.iter_organization().next())),
        names: names_of(&certificate),
    })
}

pub(super) fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            },
            _ => None,
        })
        .collect()
}

/// Whether the authority's key signed the certificate; both are PEM that was parsed before.
fn signed_by(certificate: &str, authority: &str) -> bool {
    let (Ok((_, certificate)), Ok((_, authority))) =
        (parse_x509_pem(certificate.as_bytes()), parse_x509_pem(authority.as_bytes()))
    else {
        return false;
    };
    let (Ok(certificate), Ok(authority)) = (certificate.parse_x509(), authority.parse_x509()) else {
        return false;
    };
    let signature = certificate.signature_value.data.as_ref();
    ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        authority.public_key().subject_public_key.data.as_ref(),
    )
    .verify(certificate.tbs_certificate.as_ref(), signature)
    .is_ok()
}

fn authority_params() -> Result<CertificateParams, PkiError> {
    let mut params = base_params(CA_NAME, None, CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(leaf: &Leaf<'_>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base_params(leaf.common_name, leaf.organization, LEAF_LIFETIME);
    let names = leaf.names.iter().cloned().collect::<Vec<_>>();
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = leaf.usages.to_vec();
    Ok(params)
}

/// What a certificate says that somebody asked for.
pub(super) fn request_params(
    common_name: &str,
    organization: Option<&str>,
    names: &[String],
    usage: ExtendedKeyUsagePurpose,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let names = names.iter().cloned().collect();
    let usages = &[usage];
    let params = leaf_params(&Leaf { file: "", common_name, organization, usages, names: &names })?;
    Ok(limited(params, lifetime))
}

fn limited(mut params: CertificateParams, lifetime: Duration) -> CertificateParams {
    params.not_after = params.not_before + BACKDATED + lifetime;
    params
}

fn base_params(common_name: &str, organization: Option<&str>, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(DAY * 20_000);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Certificates count whole seconds.
    let now = Duration::from_secs(now.as_secs());
    params.not_before = epoch + (now - BACKDATED);
    params.not_after = epoch + (now + lifetime);
    // The first bit stays clear: serial numbers are positive.
    let serial = rand::random::<u64>() >> 1;
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

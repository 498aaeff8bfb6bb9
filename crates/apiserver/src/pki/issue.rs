//! Certificates beside the cluster's own: identities for people and for nodes on other machines, and what a kubelet
//! shows that was given none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use x509_parser::pem::parse_x509_pem;

use super::certificate::{self, Authority, Leaf};
use super::{CertifiedKeyPem, PkiError, files, kubeconfig};

/// The user of a node's certificate is this and the node's name.
const NODE_USER: &str = "system:node:";
const NODES: &str = "system:nodes";

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A node: its certificate serves the kubelet's port too, under the node's name, as the API server wants it.
    Node(&'a str),
    /// A user, in at most one group.
    User {
        /// The user's name.
        name: &'a str,
        /// The group.
        group: Option<&'a str>,
    },
}

/// A kubeconfig (YAML) for the API server at `server_url`, with a certificate that is made for it and kept nowhere else,
/// good for `lifetime`, or a year.
///
/// # Errors
/// When `directory` does not hold the authority of a server, or it cannot sign.
pub fn issue_kubeconfig(
    directory: &Path,
    server_url: &str,
    identity: Identity<'_>,
    lifetime: Option<Duration>,
) -> Result<String, PkiError> {
    let authority = Authority::open(directory)?;
    let node_user;
    let names: BTreeSet<String>;
    let leaf = match identity {
        Identity::Node(name) => {
            node_user = format!("{NODE_USER}{name}");
            names = [name.to_owned()].into();
            Leaf {
                file: "",
                common_name: &node_user,
                organization: Some(NODES),
                usages: &[ClientAuth, ServerAuth],
                names: &names,
            }
        }
        Identity::User { name, group } => {
            names = BTreeSet::new();
            Leaf { file: "", common_name: name, organization: group, usages: &[ClientAuth], names: &names }
        }
    };
    let user = leaf.common_name.to_owned();
    let identity = authority.issue(&leaf, lifetime)?;
    Ok(kubeconfig(authority.certificate_pem(), server_url, &user, &identity))
}

/// The certificate that a kubelet makes for itself, kept in `directory`.
///
/// # Errors
/// When a file cannot be read or written, or is damaged.
pub fn self_signed(directory: &Path, node: &str, ip: IpAddr) -> Result<CertifiedKeyPem, PkiError> {
    files::make_directory(directory)?;
    let names = [node.to_owned(), ip.to_string()].into();
    let user = format!("{NODE_USER}{node}");
    certificate::ensure_self_signed(
        directory,
        &Leaf {
            file: "kubelet",
            common_name: &user,
            organization: Some(NODES),
            usages: &[ServerAuth],
            names: &names,
        },
    )
}

/// The node whose identity a certificate (PEM) is, if it is a node's.
pub fn node_of(certificate: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    name.strip_prefix(NODE_USER).map(str::to_owned)
}

/// From when to when a certificate (PEM) is good.
pub fn validity(certificate: &str) -> Option<Range<SystemTime>> {
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let time = |time: x509_parser::time::ASN1Time| {
        Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
    };
    Some(time(certificate.validity().not_before)?..time(certificate.validity().not_after)?)
}

/// The host names and addresses of a certificate (PEM).
pub fn names(certificate: &str) -> Vec<String> {
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else { return Vec::new() };
    pem.parse_x509().map(|found| certificate::names_of(&found).into_iter().collect()).unwrap_or_default()
}

/// A certificate and its key from one file, if it is there.
///
/// # Errors
/// When it cannot be read.
pub fn read_pair(path: &Path) -> Result<Option<CertifiedKeyPem>, PkiError> {
    // Where the key begins; rcgen and everybody else write it in PKCS #8.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----";
    Ok(files::read(path, files::PRIVATE)?.and_then(|text| {
        let (certificate, key) = text.split_at(text.find(KEY)?);
        Some(CertifiedKeyPem { certificate: certificate.to_owned(), key: key.to_owned() })
    }))
}

/// Writes a certificate and its key to one file, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_pair(path: &Path, pair: &CertifiedKeyPem) -> Result<(), PkiError> {
    if let Some(directory) = path.parent() {
        files::make_directory(directory)?;
    }
    files::write(path, &format!("{}{}", pair.certificate, pair.key), files::PRIVATE)
}

/// Whether a certificate (PEM) may be shown to clients.
pub fn is_for_servers(certificate: &str) -> bool {
    let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    certificate.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.server_auth)
}

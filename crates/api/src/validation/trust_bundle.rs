//! ClusterTrustBundles (KEP-3257): certificates to trust, and the signer that attests for them. The object's name says
//! which signer that is, so that who may write bundles of one cannot shadow another's.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Errors, immutable, invalid_all};
use crate::{
    FieldError,
    field::Path,
    field_error::go_quote,
    meta::{self, str_at},
    names, pem,
};

/// Bytes that the bundle's text may have.
const MAX_SIZE: usize = 1 << 20;
/// Errors speak of a bundle without showing it.
const OMITTED: &str = "<value omitted>";
const CERTIFICATE: &str = "CERTIFICATE";
const MAX_DOMAIN: usize = 253;

/// What is wrong with the name of a bundle of this signer ("" = of none); `prefix` for a `generateName`.
pub(super) fn name_messages(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    let masked = |name: &str| if prefix { names::mask_trailing_dash(name) } else { name.to_owned() };
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return names::dns1123_subdomain(&masked(name));
    }
    let wanted = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&wanted) {
        Some(rest) => names::dns1123_subdomain(&masked(rest)),
        None => {
            vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}")]
        }
    }
}

/// The signer that a bundle's name speaks of; empty when there is none (`example.com:signer:name`).
pub(super) fn signer_of_name(name: &str) -> String {
    match name.rsplit_once(':') {
        Some((signer, _)) => signer.replacen(':', "/", 1),
        None => String::new(),
    }
}

pub(super) fn validate(bundle: &Value, out: &mut Errors) {
    signer(bundle, out);
    certificates(str_at(bundle, "/spec/trustBundle"), &Path::new("spec").child("trustBundle"), out);
}

/// Certificates that stay as they are are not judged again: they may be older than a rule.
pub(super) fn validate_update(new: &Value, old: &Value, mut out: Errors) -> Errors {
    let (signer_path, bundle) = ("/spec/signerName", "/spec/trustBundle");
    let signer_name = str_at(new, signer_path);
    let at = Path::new("metadata").child("name");
    invalid_all(name_messages(signer_name, meta::name(new), false), meta::name(new), &at, &mut out);
    signer(new, &mut out);
    if str_at(new, bundle) != str_at(old, bundle) {
        certificates(str_at(new, bundle), &Path::new("spec").child("trustBundle"), &mut out);
    }
    let path = Path::new("spec").child("signerName");
    immutable(new.pointer(signer_path), old.pointer(signer_path), &path, &mut out);
    out
}

fn signer(bundle: &Value, out: &mut Errors) {
    let signer = str_at(bundle, "/spec/signerName");
    if !signer.is_empty() {
        signer_name(signer, &Path::new("spec").child("signerName"), out);
    }
}

/// A signer's name, `example.com/signer-name`.
pub(super) fn signer_name(signer: &str, path: &Path, out: &mut Errors) {
    if signer.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    let segments: Vec<&str> = signer.split('/').collect();
    let &[domain, name] = segments.as_slice() else {
        let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        out.push(FieldError::invalid(path, signer, message));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        out.push(FieldError::too_long(path, MAX_DOMAIN));
    }
    let mut labels = |segment: &str, check: fn(&str) -> Vec<String>| {
        let wrong =
            segment.split('.').map(|label| (label, check(label))).find(|(_, wrong)| !wrong.is_empty());
        for message in wrong.iter().flat_map(|(_, messages)| messages) {
            let label = wrong.as_ref().map(|(label, _)| go_quote(label)).unwrap_or_default();
            out.push(FieldError::invalid(path, segment, format!("validating label {label}: {message}")));
        }
    };
    labels(domain, names::dns1123_label);
    labels(name, names::dns1123_subdomain);
    if !domain.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        out.push(FieldError::invalid(path, domain, message));
    }
}

/// Certificates of authorities and nothing else, each once, at least one.
fn certificates(text: &str, path: &Path, out: &mut Errors) {
    if text.len() > MAX_SIZE {
        out.push(FieldError::too_long(path, MAX_SIZE));
        return;
    }
    let wrong = |message: String| FieldError::invalid(path, OMITTED, message);
    let mut seen: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    let before = out.len();
    for (i, block) in pem::blocks(text).into_iter().enumerate() {
        match fault(&block) {
            Some(fault) => out.push(wrong(format!("entry {i} {fault}"))),
            None => seen.entry(block.content).or_default().push(i.to_string()),
        }
    }
    if out.len() > before {
        return;
    }
    if seen.is_empty() {
        out.push(wrong("at least one trust anchor must be provided".to_owned()));
    }
    for indices in seen.values().filter(|indices| indices.len() > 1) {
        out.push(wrong(format!("duplicate trust anchor (indices [{}])", indices.join(" "))));
    }
}

/// Why a block is no certificate of an authority.
fn fault(block: &pem::Block) -> Option<String> {
    if block.label != CERTIFICATE {
        return Some(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Some("has PEM block headers".to_owned());
    }
    let Ok(([], certificate)) = X509Certificate::from_der(&block.content) else {
        return Some("does not parse as X.509".to_owned());
    };
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => None,
        Ok(_) => Some("does not have the CA bit set".to_owned()),
        Err(_) => Some("has invalid basic constraints".to_owned()),
    }
}

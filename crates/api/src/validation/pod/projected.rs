//! Projected volumes: several sources in one directory, no path twice (ENV-49).

use std::collections::BTreeSet;

use serde_json::Value;

use super::volume::{downward, files, mode, non_reserved};
use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    validation::{Errors, invalid_all, label_selector, required_text, trust_bundle},
};

/// The least and the most that a token may be good for, in seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

pub(super) fn projected(source: &Value, path: &Path, out: &mut Errors) {
    mode(source, "defaultMode", path, out);
    let mut taken = Taken { paths: BTreeSet::new(), volume: path };
    for (i, part) in items(source, "sources").iter().enumerate() {
        let path = path.child("sources").index(i);
        for (n, (kind, inner)) in part.as_object().into_iter().flatten().enumerate() {
            let path = path.child(kind);
            if n > 0 {
                out.push(FieldError::forbidden(&path, "may not specify more than 1 volume type per source"));
            }
            match kind.as_str() {
                "secret" | "configMap" => {
                    required_text(inner, "name", &path, out);
                    files(inner, &path, out);
                    for item in items(inner, "items") {
                        taken.take(str_of(item, "path"), str_of(inner, "name"), out);
                    }
                }
                "downwardAPI" => {
                    downward(inner, &path, out);
                    for item in items(inner, "items") {
                        taken.take(str_of(item, "path"), str_of(item, "path"), out);
                    }
                }
                "serviceAccountToken" => token(inner, &path, &mut taken, out),
                "clusterTrustBundle" => trust_anchors(inner, &path, &mut taken, out),
                _ => {}
            }
        }
    }
}

/// The paths of the sources so far. What a source takes by its keys alone is not known here: there the later one wins.
struct Taken<'a> {
    paths: BTreeSet<String>,
    volume: &'a Path,
}

impl Taken<'_> {
    /// Takes a path; a second taker is refused by the name that upstream shows.
    fn take(&mut self, path: &str, shown: &str, out: &mut Errors) {
        if !path.is_empty() && !self.paths.insert(path.to_owned()) {
            out.push(FieldError::invalid(self.volume, shown, "conflicting duplicate paths"));
        }
    }
}

fn own_path(source: &Value, path: &Path, taken: &mut Taken<'_>, out: &mut Errors) {
    let own = str_of(source, "path");
    if required_text(source, "path", path, out) {
        non_reserved(own, &path.child("path"), out);
    }
    taken.take(own, own, out);
}

fn token(source: &Value, path: &Path, taken: &mut Taken<'_>, out: &mut Errors) {
    let seconds = source.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let message = match seconds {
        ..SHORTEST => Some("may not specify a duration less than 10 minutes"),
        SHORTEST..=LONGEST => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    out.extend(message.map(|text| FieldError::invalid(path.child("expirationSeconds"), seconds, text)));
    own_path(source, path, taken, out);
}

/// A ClusterTrustBundle by its name, or those of a signer that have labels.
fn trust_anchors(source: &Value, path: &Path, taken: &mut Taken<'_>, out: &mut Errors) {
    let given = |field: &str| source.get(field).and_then(Value::as_str);
    match (given("name"), given("signerName")) {
        (Some(_), Some(_)) => {
            let message = "only one of name and signerName may be used";
            out.push(FieldError::invalid(path, source.clone(), message));
        }
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                out.push(FieldError::required(&at, "must be a valid object name"));
            }
            let signer = trust_bundle::signer_of_name(name);
            invalid_all(trust_bundle::name_messages(&signer, name, false), name, &at, out);
            if let Some(selector) = source.get("labelSelector") {
                let message = "labelSelector must be unset if name is specified";
                out.push(FieldError::invalid(path.child("labelSelector"), selector.clone(), message));
            }
        }
        (None, Some(signer)) => {
            let at = path.child("signerName");
            if signer.is_empty() {
                out.push(FieldError::required(&at, "must be a valid signer name"));
            }
            trust_bundle::signer_name(signer, &at, out);
            if let Some(selector) = source.get("labelSelector") {
                label_selector(selector, &path.child("labelSelector"), out);
            }
        }
        (None, None) => {
            out.push(FieldError::required(path, "either name or signerName must be specified"));
        }
    }
    own_path(source, path, taken, out);
}

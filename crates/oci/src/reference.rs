//! Image names as people write them: `[host[:port]/]path[:tag][@digest]` (IMG-01..17).
//!
//! The grammar, the normalisation and the error texts are those that Kubernetes users see, because
//! they end up in events and in `kubectl describe`.

use std::fmt;

use crate::digest::{Digest, DigestError};

/// The registry host that a name without one means (IMG-02).
pub const DEFAULT_HOST: &str = "docker.io";
/// The tag that a name without tag and digest means (IMG-15).
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_HOST: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const MAX_PATH: usize = 255;

/// Why a string is no image name; displays as `couldn't parse image name "x": cause` (IMG-14).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {}: {cause}", go_quote(written))]
pub struct ReferenceError {
    /// The name as it was written.
    pub written: String,
    /// What is wrong with it.
    pub cause: Cause,
}

/// The causes, with the texts of the reference package that Kubernetes uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Does not fit the grammar at all.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the repository path; shown after normalisation (IMG-11).
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Upper case where the name only becomes valid in lower case.
    #[error("repository name must be lowercase")]
    UppercaseName,
    /// The path is longer than 255 characters (IMG-08).
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The whole name is an image id (IMG-13).
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The digest is malformed (IMG-12).
    #[error("{0}")]
    Digest(DigestError),
}

/// A parsed and normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name as a user wrote it; `latest` is filled in when it has neither tag nor digest
    /// (IMG-15). With both, the digest decides what is fetched (IMG-17).
    pub fn parse(written: &str) -> Result<Self, ReferenceError> {
        parse(written).map_err(|cause| ReferenceError { written: written.to_owned(), cause })
    }

    /// The normalised repository with its host: `docker.io/library/root`, `url:5000/repo`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The registry host with its port, as written: `docker.io`, `[::1]:5000`.
    pub fn host(&self) -> &str {
        self.repository.split_once('/').map_or(self.repository.as_str(), |(host, _)| host)
    }

    /// The repository without its host: `library/root`.
    pub fn path(&self) -> &str {
        self.repository.split_once('/').map_or("", |(_, path)| path)
    }

    /// The tag: written, or `latest` when there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands in a manifest URL: the digest, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// `repository:tag`, when there is a tag and no digest: the name under which an image is stored.
    pub fn repo_tag(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), None) => Some(format!("{}:{tag}", self.repository)),
            _ => None,
        }
    }

    /// `repository@digest` for a digest that was found for this name (IMG-86).
    pub fn repo_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository)
    }

    /// The same repository at another digest.
    pub fn at(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Appends the default tag to the name **as written** (IMG-16): `root` becomes `root:latest`; a name
/// with a tag or digest stays untouched.
pub fn with_default_tag(written: &str) -> Result<String, ReferenceError> {
    let reference = Reference::parse(written)?;
    match (reference.tag(), reference.digest()) {
        (Some(tag), None) if !written.ends_with(&format!(":{tag}")) => Ok(format!("{written}:{tag}")),
        _ => Ok(written.to_owned()),
    }
}

fn parse(written: &str) -> Result<Reference, Cause> {
    if written.len() == 64 && written.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Cause::Identifier(written.to_owned()));
    }
    let (host, remainder) = split_host(written);
    let path = remainder.split(':').next().unwrap_or_default();
    if path.to_lowercase() != path {
        return Err(Cause::Uppercase(path.to_owned()));
    }
    let full = format!("{host}/{remainder}");
    let Some((repository, tag, digest)) = match_grammar(&full) else {
        let lower = full.to_lowercase();
        return Err(if lower != full && match_grammar(&lower).is_some() {
            Cause::UppercaseName
        } else {
            Cause::Format
        });
    };
    if repository.path.len() > MAX_PATH {
        return Err(Cause::TooLong);
    }
    let digest = digest.map(|d| d.parse::<Digest>().map_err(Cause::Digest)).transpose()?;
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (None, Some(_)) => None,
    };
    Ok(Reference { repository: repository.name.to_owned(), tag, digest })
}

/// IMG-02..05: which part is the host, and what is meant when there is none.
fn split_host(written: &str) -> (&str, String) {
    let Some((first, rest)) = written.split_once('/') else {
        return (DEFAULT_HOST, format!("{OFFICIAL_PREFIX}{written}"));
    };
    let (host, path) = if first == LEGACY_HOST {
        (DEFAULT_HOST, rest)
    } else if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first {
        (first, rest)
    } else {
        (DEFAULT_HOST, written)
    };
    if host == DEFAULT_HOST && !path.contains('/') {
        (host, format!("{OFFICIAL_PREFIX}{path}"))
    } else {
        (host, path.to_owned())
    }
}

struct Repository<'a> {
    name: &'a str,
    path: &'a str,
}

type Parts<'a> = (Repository<'a>, Option<&'a str>, Option<&'a str>);

fn match_grammar(full: &str) -> Option<Parts<'_>> {
    let (rest, digest) = match full.split_once('@') {
        Some((rest, digest)) if is_digest_shape(digest) => (rest, Some(digest)),
        Some(_) => return None,
        None => (full, None),
    };
    let (name, tag) = match rest.rfind(':') {
        Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return None;
    }
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) && is_path(path) => path,
        _ if is_path(name) => name,
        _ => return None,
    };
    Some((Repository { name, path }, tag, digest))
}

/// IMG-09.
fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

fn is_digest_shape(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
        && algorithm.split(['-', '_', '+', '.']).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

/// IMG-06: host labels of alphanumerics with inner `-`, or a bracketed IPv6 address without zone; an
/// optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(inner) = name.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        });
    }
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// IMG-10: lower-case alphanumerics joined by `.`, `_`, `__` or a run of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.chunk_by(|a, b| alphanumeric(a) == alphanumeric(b)).all(|run| {
        alphanumeric(&run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-')
    })
}

/// Quotes like Go's `%q`, which is how Kubernetes shows names in messages.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;

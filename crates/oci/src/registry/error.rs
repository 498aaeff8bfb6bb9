//! Errors that say what was asked of whom, and what the registry answered.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::hosts::HostsError;
use super::resolve::ResolveError;
use crate::digest::{Digest, VerifyError};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A manifest by tag or digest.
    Manifest(String),
    /// A blob.
    Blob(Digest),
    /// A token, from this URL.
    Token(String),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(version) => write!(f, "manifest {version}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Token(realm) => write!(f, "token from {realm}"),
        }
    }
}

/// A request, as errors name it: `manifest 1.0 of h.io/team/app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The registry host.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// What was asked for.
    pub operation: Operation,
    /// The origin that was asked, when it is not the host itself: a mirror, a redirect's target.
    pub place: Option<String>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}/{}", self.operation, self.host, self.repository)?;
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It answered with an error.
    #[error("{at}: {}{}", status_text(*status), detail(errors))]
    Status {
        /// The request.
        at: At,
        /// HTTP status.
        status: StatusCode,
        /// The registry's own errors, bounded; empty when it gave none.
        errors: Vec<String>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Credentials are missing or wrong.
    #[error("{at}: {}, {}{}", status_text(*status), tried_with(*anonymous), detail(errors))]
    Unauthorized {
        /// The request.
        at: At,
        /// HTTP status: 401 or 403.
        status: StatusCode,
        /// No credentials were given.
        anonymous: bool,
        /// The registry's own errors.
        errors: Vec<String>,
    },
    /// The registry could not be reached.
    #[error("{at}: {endpoint}")]
    Connect {
        /// The request.
        at: At,
        /// The URL's origin.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The name of the host has no address.
    #[error("{at}")]
    Resolve {
        /// The request.
        at: At,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// The server's certificate is not accepted, or it does not accept ours.
    #[error("{at}: {endpoint}: certificate not accepted")]
    Certificate {
        /// The request.
        at: At,
        /// The URL's origin.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Several places were asked, and none gave it: what each of them said, in order.
    #[error("{at}: {}", attempts(tried))]
    Tried {
        /// The request.
        at: At,
        /// Origin and error of each; the registry itself comes last.
        tried: Vec<(String, RegistryError)>,
    },
    /// What is configured about the host cannot be used.
    #[error("{at}")]
    Hosts {
        /// The request.
        at: At,
        /// What is wrong with it.
        #[source]
        source: HostsError,
    },
    /// The connection broke or stalled, also after all retries.
    #[error("{at}: broken off after {received} bytes")]
    Broken {
        /// The request.
        at: At,
        /// Bytes that had come.
        received: u64,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A body larger than what is accepted or was promised.
    #[error("{at}: the answer is larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// The request.
        at: At,
        /// The bound in bytes.
        limit: u64,
    },
    /// The content is not what its digest promises.
    #[error("{at}")]
    Verify {
        /// The request.
        at: At,
        /// The difference.
        #[source]
        source: VerifyError,
    },
    /// An answer that breaks the protocol.
    #[error("{at}: {what}")]
    Protocol {
        /// The request.
        at: At,
        /// What is wrong.
        what: String,
    },
    /// The client could not be set up (certificates).
    #[error("{what}")]
    Setup {
        /// What was being set up.
        what: String,
        /// Why not.
        #[source]
        source: Cause,
    },
}

/// An error of the HTTP or TLS library, or of the operating system.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A call that the operating system refused, in the words of Go's clients, which people search for:
/// `connect: connection refused`.
#[derive(Debug)]
pub(super) struct OsError {
    /// `connect`, `read`.
    pub(super) call: &'static str,
    /// The refusal.
    pub(super) error: std::io::Error,
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.error.to_string();
        let words = words.split(" (os error").next().unwrap_or_default().to_lowercase();
        write!(f, "{}: {words}", self.call)
    }
}

impl std::error::Error for OsError {}

impl RegistryError {
    /// The error that decides: of several, the one of the registry itself, which was asked last.
    pub fn decisive(&self) -> &Self {
        match self {
            Self::Tried { tried, .. } => tried.last().map_or(self, |(_, error)| error.decisive()),
            other => other,
        }
    }

    /// The registry says that there is no such image.
    pub fn is_not_found(&self) -> bool {
        matches!(self.decisive(), Self::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// The registry answered, and will not give it: any 4xx.
    pub fn is_refusal(&self) -> bool {
        match self.decisive() {
            Self::Status { status, .. } => status.is_client_error(),
            Self::Unauthorized { .. } => true,
            _ => false,
        }
    }

    /// The registry wants (other) credentials.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.decisive(), Self::Unauthorized { .. })
    }

    /// The registry cannot be reached or is not able to answer (IMG-31): no connection, no answer of the name
    /// servers, 502 to 504. A name that does not exist and a certificate that is not accepted are mistakes
    /// that waiting does not mend.
    pub fn is_unavailable(&self) -> bool {
        match self.decisive() {
            Self::Connect { .. } => true,
            Self::Resolve { source, .. } => !source.no_such_host,
            Self::Status { status, .. } => matches!(status.as_u16(), 502..=504),
            _ => false,
        }
    }

    /// What went wrong, with all causes, without naming the request again.
    pub fn reason(&self) -> String {
        let own = match self {
            Self::Status { status, errors, .. } => format!("{}{}", status_text(*status), detail(errors)),
            Self::Unauthorized { status, anonymous, errors, .. } => {
                format!("{}, {}{}", status_text(*status), tried_with(*anonymous), detail(errors))
            }
            Self::Broken { received, .. } => format!("broken off after {received} bytes"),
            Self::TooLarge { limit, .. } => {
                format!("the answer is larger than the {limit} bytes that are accepted")
            }
            Self::Protocol { what, .. } => what.clone(),
            Self::Certificate { .. } => "certificate not accepted".to_owned(),
            Self::Setup { what, .. } => what.clone(),
            Self::Tried { tried, .. } => attempts(tried),
            Self::Connect { .. } | Self::Resolve { .. } | Self::Verify { .. } | Self::Hosts { .. } => {
                String::new()
            }
        };
        let mut parts: Vec<String> = Some(own).filter(|text| !text.is_empty()).into_iter().collect();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            parts.push(cause.to_string());
            source = cause.source();
        }
        parts.join(": ")
    }
}

fn attempts(tried: &[(String, RegistryError)]) -> String {
    let each: Vec<String> = tried.iter().map(|(origin, e)| format!("{origin}: {}", e.reason())).collect();
    format!("tried {} hosts: [{}]", tried.len(), each.join("], ["))
}

fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn tried_with(anonymous: bool) -> &'static str {
    if anonymous { "no credentials were given" } else { "the credentials were not accepted" }
}

fn detail(errors: &[String]) -> String {
    if errors.is_empty() { String::new() } else { format!(": {}", errors.join("; ")) }
}

/// Reads `{"errors":[{"code","message","detail"}]}`; anything else counts as its first line when it is
/// short plain text.
pub(super) fn parse_errors(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        // Token servers.
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        error_description: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default().trim();
        let plain = !line.is_empty() && !line.starts_with(['<', '{', '[']);
        return if plain { vec![clip(line)] } else { Vec::new() };
    };
    let entries = body.errors.into_iter().take(4).filter_map(|e| match (e.code, e.message) {
        (Some(code), Some(message)) => Some(clip(&format!("{code}: {message}"))),
        (Some(text), None) | (None, Some(text)) => Some(clip(&text)),
        (None, None) => None,
    });
    entries.chain(body.details.map(|d| clip(&d))).chain(body.error_description.map(|d| clip(&d))).collect()
}

/// One line of at most 300 characters without control characters: it goes into events and terminals.
pub(super) fn clip(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

//! What travels with a request from the door to its handler.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// What all warnings of an answer may take together, in bytes (upstream's bound).
const MOST_BYTES: usize = 4096;

/// A request's subject, its author and what was learned on the way.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// What the request is about.
    pub info: Arc<RequestInfo>,
    /// Who makes it: after impersonation.
    pub user: Arc<UserInfo>,
    /// The query, decoded.
    pub query: Arc<Query>,
    /// The request's headers.
    pub headers: Arc<HeaderMap>,
    /// Names the request in logs; sent back as `Audit-ID`.
    pub audit_id: Arc<str>,
    /// What the answer's `Warning` headers will say.
    pub warnings: Warnings,
}

/// The texts for `Warning: 299` headers, gathered along the way.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text, once, and as long as there is room: clients refuse an answer with too large a head.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written: usize = texts.iter().map(String::len).sum();
        if written + text.len() <= MOST_BYTES && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// All texts so far.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

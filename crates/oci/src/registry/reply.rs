//! A request on the wire and its answer: redirects, connection limits, bounded bodies.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, StatusCode};
use reqwest::{Response, Url};
use tokio::sync::OwnedSemaphorePermit;

use super::auth::origin_of;
use super::error::{At, Cause, Operation, OsError, RegistryError};
use super::hosts::{Endpoint, is_loopback};
use super::request::{Call, Patience};
use super::resolve::ResolveError;
use super::tls::Variant;
use super::{Client, Credentials, Session};

/// The longest chain of redirects that is followed.
const MAX_REDIRECTS: usize = 10;
/// As much of an error's body as is read.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Longest time for an error's body: it is worth little.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, and the right to its connection.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) response: Response,
    /// The origin that a redirect led to.
    pub(super) elsewhere: Option<String>,
    /// The origin that was asked.
    pub(super) origin: String,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    /// The answer of the server that was asked.
    pub(super) fn of(response: Response, origin: &str, permit: OwnedSemaphorePermit) -> Self {
        Self { response, elsewhere: None, origin: origin.to_owned(), _permit: permit }
    }
}

impl Session {
    /// Sends and follows redirects. `Authorization`, the endpoint's own headers and its client certificate
    /// never go to another origin.
    pub(super) async fn follow(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let at = || At { place: self.place(endpoint), ..self.at(&call.operation) };
        let bad = |what: String| RegistryError::Protocol { at: at(), what };
        let mut url = Url::parse(&format!("{}{}{}", endpoint.origin, endpoint.path, call.path))
            .map_err(|e| bad(format!("{} is not a URL: {e}", endpoint.origin)))?;
        if let Some(namespace) = &endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let origin = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == origin;
            // What a digest vouches for may come from anywhere that an unchecked registry names.
            let insecure = endpoint.skip_verify && (own || matches!(call.operation, Operation::Blob(_)));
            let variant = Variant {
                insecure,
                direct: url.host_str().is_some_and(is_loopback),
                tls: endpoint.tls.clone(),
                show: own,
                connect_timeout: endpoint.connect_timeout,
            };
            let pool = self.client.pool(variant)?;
            let permit = self.client.permit(&origin_of(&url), call.bulk).await;
            let mut request = pool.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if own {
                request = request.headers(endpoint.headers.clone());
                if let Some(value) = &authorization {
                    request = request.header(AUTHORIZATION, value.clone());
                }
            }
            let response = request.send().await.map_err(|e| connect_error(at(), &url, e))?;
            let status = response.status();
            let elsewhere = (!own).then(|| origin_of(&url));
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(Reply { elsewhere, ..Reply::of(response, &endpoint.origin, permit) });
            }
            let target = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let target = target.ok_or_else(|| bad("a redirect without a target".to_owned()))?;
            let next = url.join(target).map_err(|e| bad(format!("a redirect to no URL: {e}")))?;
            let downgrade = url.scheme() == "https" && next.scheme() != "https";
            if !matches!(next.scheme(), "http" | "https") || downgrade {
                return Err(bad(format!("a redirect to {}, which is not encrypted", origin_of(&next))));
            }
            url = next;
        }
        Err(bad(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// A layer from one of the places that its manifest names (foreign layers). Nobody's credentials go there,
    /// and a public registry cannot point into this machine.
    pub(super) async fn foreign(&self, url: &str, call: &Call) -> Result<Reply, RegistryError> {
        let bad = |what: String| RegistryError::Protocol { at: self.at(&call.operation), what };
        let parsed = Url::parse(url).map_err(|e| bad(format!("a foreign layer's address is no URL: {e}")))?;
        let inward = parsed.host_str().is_some_and(is_loopback) && !is_loopback(&self.host);
        if !matches!(parsed.scheme(), "http" | "https") || inward {
            return Err(bad(format!("a foreign layer at {}; refused", origin_of(&parsed))));
        }
        let mut path = parsed.path().to_owned();
        if let Some(query) = parsed.query() {
            path = format!("{path}?{query}");
        }
        let endpoint = Endpoint {
            path: String::new(),
            credentials: false,
            // Nor those of a mirror at that address.
            login: Some(Credentials::Anonymous),
            ..Endpoint::new(origin_of(&parsed))
        };
        let patience = Patience { last: true, alone: true };
        self.send_to(&endpoint, &Call { path, ..call.clone() }, patience).await
    }
}

impl Client {
    /// The right to one more request to a server. Long answers leave some for the short ones.
    pub(super) async fn permit(&self, origin: &str, bulk: bool) -> OwnedSemaphorePermit {
        let gate = self.gate(origin, bulk);
        gate.acquire_owned().await.expect("gates are never closed")
    }
}

fn connect_error(at: At, url: &Url, error: reqwest::Error) -> RegistryError {
    if let Some(resolve) = find::<ResolveError>(&error) {
        return RegistryError::Resolve { at, source: resolve.clone() };
    }
    let endpoint = origin_of(url);
    if let Some(tls) = find::<rustls::Error>(&error)
        && matches!(tls, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
    {
        return RegistryError::Certificate { at, endpoint, source: tls.to_string().into() };
    }
    RegistryError::Connect { at, endpoint, source: cause(error, "connect") }
}

/// Looks for an error among the causes; the standard library's I/O error hides what it carries.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match carried {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The innermost useful error: the library's own layers only say "error sending request".
/// When it is the operating system's, `call` is named as what failed.
pub(super) fn cause(error: reqwest::Error, call: &'static str) -> Cause {
    let error = error.without_url();
    let mut text = Vec::new();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push(cause.to_string());
        source = cause.source();
    }
    // Kept as an error, so that its kind can be asked for.
    let mut innermost: &(dyn std::error::Error + 'static) = &error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    let io = innermost.downcast_ref::<std::io::Error>();
    if let Some(number) = io.and_then(std::io::Error::raw_os_error) {
        return Box::new(OsError { call, error: std::io::Error::from_raw_os_error(number) });
    }
    if error.is_timeout() {
        return "timed out".into();
    }
    match text.last() {
        Some(last) => last.clone().into(),
        None => error.to_string().into(),
    }
}

/// The whole body, when it is not larger than `limit` and comes within `timeout`.
pub(super) async fn read_bounded(
    mut reply: Reply,
    limit: u64,
    timeout: Duration,
    at: &At,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge { at: at.clone(), limit };
    if reply.response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let end = tokio::time::Instant::now() + timeout;
    let mut body = Vec::new();
    loop {
        let broken = |source| RegistryError::Broken { at: at.clone(), received: body.len() as u64, source };
        let chunk = match tokio::time::timeout_at(end, reply.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| broken(cause(e, "read")))?,
            Err(_) => return Err(broken(format!("not complete after {} s", timeout.as_secs_f64()).into())),
        };
        let Some(chunk) = chunk else { return Ok(body.into()) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

/// The beginning of an error's body; what cannot be read soon is missing.
pub(super) async fn read_error_body(mut reply: Reply) -> Vec<u8> {
    let mut body = Vec::new();
    let end = tokio::time::Instant::now() + ERROR_BODY_TIMEOUT;
    while body.len() < MAX_ERROR_BODY {
        match tokio::time::timeout_at(end, reply.response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - body.len())]);
            }
            _ => break,
        }
    }
    body
}

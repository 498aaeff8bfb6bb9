//! One request to a registry: endpoints in order, challenges, redirects, retries.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Response, Url};

use super::auth::origin_of;
use super::challenge;
use super::error::{At, Cause, Operation, OsError, RegistryError, parse_errors};
use super::hosts::{Capability, Endpoint, is_loopback};
use super::resolve::ResolveError;
use super::{Session, tls};

/// The longest chain of redirects that is followed.
const MAX_REDIRECTS: usize = 10;
/// As much of an error's body as is read.
const MAX_ERROR_BODY: usize = 64 << 10;

/// A request before it is known where it goes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// `/v2/<repository>/…`.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

impl Session {
    /// Sends a request to the first endpoint that can answer it; the response is a success.
    pub(super) async fn send(&self, call: Call, capability: Capability) -> Result<Response, RegistryError> {
        let endpoints = self.client.inner.hosts.endpoints(&self.host, capability);
        let last = endpoints.len().saturating_sub(1);
        let mut first_error = None;
        for (i, endpoint) in endpoints.iter().enumerate() {
            // The other scheme of a server that was just tried: once is enough.
            let same = i > 0 && server(endpoint) == server(&endpoints[i - 1]);
            match self.send_to(endpoint, &call, i == last && !same).await {
                Ok(response) => return Ok(response),
                Err(error) if i < last && goes_on(&error, server(endpoint) == server(&endpoints[i + 1])) => {
                    tracing::debug!(origin = endpoint.origin, %error, "trying the next endpoint");
                    first_error.get_or_insert(error);
                }
                // The same server under its other scheme: what it said over the first one counts.
                Err(error) if error.is_unavailable() => return Err(first_error.unwrap_or(error)),
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| RegistryError::Protocol {
            at: self.at(&call.operation),
            what: "no endpoint is configured for this host".to_owned(),
        }))
    }

    async fn send_to(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        retry_connect: bool,
    ) -> Result<Response, RegistryError> {
        let config = &self.client.inner.config;
        let mut pause = config.retry_pause;
        let mut attempt = 1;
        loop {
            let (error, wait) = match self.authorized(endpoint, call).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let wait = retry_after(&response);
                    let retry = is_transient(response.status());
                    let error = self.status_error(endpoint, &call.operation, response).await;
                    if !retry {
                        return Err(error);
                    }
                    (error, wait)
                }
                Err(error @ RegistryError::Connect { .. }) if retry_connect && !is_refused(&error) => {
                    (error, None)
                }
                Err(error) => return Err(error),
            };
            let wait = wait.unwrap_or(pause);
            if attempt >= config.attempts || wait > config.max_retry_after {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "registry request is tried again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(config.retry_pause * 30);
            attempt += 1;
        }
    }

    /// Sends, answers a challenge and sends again.
    async fn authorized(&self, endpoint: &Endpoint, call: &Call) -> Result<Response, RegistryError> {
        let mut authorization = self.authorization(endpoint);
        for round in 0..2 {
            let had_one = authorization.is_some();
            let (response, own) = self.follow(endpoint, call, authorization.take()).await?;
            // A redirect target's challenge is not the registry's: our credentials are not for it.
            if response.status() != StatusCode::UNAUTHORIZED || !own {
                return Ok(response);
            }
            if had_one {
                self.forget_authorization(endpoint);
            }
            let Some(challenge) = challenge::of(response.headers()) else { return Ok(response) };
            if round == 1 {
                return Ok(response);
            }
            match self.answer(endpoint, challenge).await? {
                Some(value) => authorization = Some(value),
                None => return Ok(response),
            }
        }
        Err(RegistryError::Protocol { at: self.at(&call.operation), what: "endless challenges".to_owned() })
    }

    /// Sends and follows redirects; true when the answer came from the endpoint itself. `Authorization`
    /// never goes to another origin.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        authorization: Option<HeaderValue>,
    ) -> Result<(Response, bool), RegistryError> {
        let at = || self.at(&call.operation);
        let bad = |what: String| RegistryError::Protocol { at: at(), what };
        let mut url = Url::parse(&format!("{}{}", endpoint.origin, call.path))
            .map_err(|e| bad(format!("{} is not a URL: {e}", endpoint.origin)))?;
        let origin = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == origin;
            let loopback = url.host_str().is_some_and(is_loopback);
            let pool = self.client.pool(tls::Variant::of(own && endpoint.skip_verify, loopback))?;
            let mut request = pool.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if let Some(value) = authorization.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = request.send().await.map_err(|e| connect_error(at(), &url, e))?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok((response, own));
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

    async fn status_error(
        &self,
        endpoint: &Endpoint,
        operation: &Operation,
        response: Response,
    ) -> RegistryError {
        let at = self.at(operation);
        let status = response.status();
        let errors = parse_errors(&read_error_body(response).await);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Unauthorized { at, status, anonymous: self.is_anonymous(endpoint), errors }
            }
            _ => RegistryError::Status { at, status, errors },
        }
    }
}

/// Whether the next endpoint may do better: another server, or the same one under its other scheme.
fn goes_on(error: &RegistryError, same_server: bool) -> bool {
    match error {
        RegistryError::Connect { .. } | RegistryError::Resolve { .. } => true,
        // A TLS server that was spoken to in plain HTTP says 400.
        RegistryError::Status { status: StatusCode::BAD_REQUEST, .. } => true,
        RegistryError::Status { status, .. } => {
            !same_server && (*status == StatusCode::NOT_FOUND || is_transient(*status))
        }
        RegistryError::Unauthorized { .. } => !same_server,
        _ => false,
    }
}

fn server(endpoint: &Endpoint) -> &str {
    endpoint.origin.split_once("://").map_or(endpoint.origin.as_str(), |(_, server)| server)
}

pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn is_refused(error: &RegistryError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(os) = cause.downcast_ref::<OsError>() {
            return os.error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = cause.source();
    }
    false
}

fn connect_error(at: At, url: &Url, error: reqwest::Error) -> RegistryError {
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(resolve) = cause.downcast_ref::<ResolveError>() {
            return RegistryError::Resolve { at, source: resolve.clone() };
        }
        source = cause.source();
    }
    RegistryError::Connect { at, endpoint: origin_of(url), source: cause(error, "connect") }
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

/// The whole body, when it is not larger than `limit`.
pub(super) async fn read_bounded(
    mut response: Response,
    limit: u64,
    at: &At,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge { at: at.clone(), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| RegistryError::Broken {
            at: at.clone(),
            received: body.len() as u64,
            source: cause(e, "read"),
        })?;
        let Some(chunk) = chunk else { return Ok(body.into()) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

/// The beginning of an error's body; what cannot be read is missing.
pub(super) async fn read_error_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BODY - body.len())]),
            _ => break,
        }
    }
    body
}

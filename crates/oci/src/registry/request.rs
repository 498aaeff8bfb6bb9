//! One request to a registry: endpoints in order, challenges, retries.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Session;
use super::challenge;
use super::error::{At, Operation, OsError, RegistryError, parse_errors};
use super::hosts::{Capability, Endpoint};
use super::reply::{Reply, read_error_body};

/// A request before it is known where it goes.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// `/<repository>/…`, behind the endpoint's own path.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// The answer may be long: it waits for its turn behind other long ones.
    pub(super) bulk: bool,
}

/// How patient a request is, by who is left to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// No other server is left: waiting for this one pays.
    pub(super) last: bool,
    /// Not even the other scheme of this server is: connecting is tried again.
    pub(super) alone: bool,
}

/// What is done at one endpoint.
pub(super) type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, RegistryError>> + Send + 'a>>;

impl Session {
    /// Tries the endpoints of the registry host in order until one succeeds.
    pub(super) async fn first<'a, T>(
        &'a self,
        operation: &Operation,
        capability: Capability,
        attempt: impl Fn(&'a Self, Endpoint, Patience) -> Attempt<'a, T>,
    ) -> Result<T, RegistryError> {
        let endpoints = self.endpoints(operation, capability)?;
        let end = endpoints.len().saturating_sub(1);
        let mut tried: Vec<(String, RegistryError)> = Vec::new();
        for (i, endpoint) in endpoints.iter().enumerate() {
            // The other scheme of a server that was just tried: once is enough.
            let again = i > 0 && server(endpoint) == server(&endpoints[i - 1]);
            let twin = endpoints.get(i + 1).is_some_and(|next| server(next) == server(endpoint));
            let patience = Patience { last: i + usize::from(twin) == end, alone: i == end && !again };
            let error = match attempt(self, endpoint.clone(), patience).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if i < end {
                tracing::debug!(origin = endpoint.origin, %error, "trying the next endpoint");
            }
            if matches!(error, RegistryError::Connect { .. } | RegistryError::Resolve { .. }) && !twin {
                self.client.shun(&endpoint.origin);
            }
            // Over its other scheme a server says the same, unless it was spoken to in the wrong one.
            let stop = twin && !is_wrong_scheme(&error);
            match tried.last_mut() {
                // What it said over the first scheme counts, unless only the second brought an answer.
                Some((_, first)) if again => {
                    if !error.is_unavailable() {
                        *first = error;
                    }
                }
                _ => tried.push((endpoint.origin.clone(), error)),
            }
            if stop {
                break;
            }
        }
        let at = self.at(operation);
        match tried.len() {
            0 => Err(RegistryError::Protocol {
                at,
                what: "no host that is configured for this registry has the capability".to_owned(),
            }),
            1 => Err(tried.remove(0).1),
            // The registry's own word is the last, whatever the order was.
            _ => {
                let own = |origin: &str| endpoints.iter().any(|e| e.credentials && e.origin == origin);
                tried.sort_by_key(|(origin, _)| own(origin));
                Err(RegistryError::Tried { at, tried })
            }
        }
    }

    /// The endpoints as they are asked now: those that could not be reached a moment ago come last, and one
    /// that gave wrong content is left out.
    fn endpoints(
        &self,
        operation: &Operation,
        capability: Capability,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let all = self.client.inner.hosts.endpoints(&self.host, capability);
        let all = all.map_err(|source| RegistryError::Hosts { at: self.at(operation), source })?;
        let trusted: Vec<Endpoint> = all.iter().filter(|e| !self.is_distrusted(&e.origin)).cloned().collect();
        let mut endpoints = if trusted.is_empty() { all } else { trusted };
        // Stable: among equals the configured order stays.
        endpoints.sort_by_key(|endpoint| self.client.is_shunned(&endpoint.origin));
        Ok(endpoints)
    }

    /// Sends to one endpoint, with each credential that is for it until one is accepted; the reply is a success.
    pub(super) async fn send_to(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        patience: Patience,
    ) -> Result<Reply, RegistryError> {
        let mut refused = None;
        for endpoint in self.logins(endpoint) {
            match self.send_as(&endpoint, call, patience).await {
                Err(error) if error.is_unauthorized() => refused = Some(error),
                other => return other,
            }
        }
        Err(refused.expect("an endpoint is asked at least once"))
    }

    /// Sends to one endpoint, with retries.
    async fn send_as(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        Patience { last, alone }: Patience,
    ) -> Result<Reply, RegistryError> {
        let config = &self.client.inner.config;
        // Somebody else can be asked instead of waiting.
        let attempts = if last { config.attempts } else { config.attempts.min(2) };
        let mut pause = config.retry_pause;
        let mut attempt = 1;
        loop {
            let error = match self.authorized(endpoint, call).await {
                Ok(reply) if reply.response.status().is_success() => return Ok(reply),
                Ok(reply) => self.status_error(endpoint, &call.operation, reply).await,
                Err(error) => error,
            };
            // The token server's word counts like the registry's.
            let wait = match &error {
                RegistryError::Status { status, retry_after, .. } if is_transient(*status) => *retry_after,
                RegistryError::Connect { .. } if alone && !is_refused(&error) => None,
                _ => return Err(error),
            };
            let asked = wait.is_some();
            let wait = wait.unwrap_or(pause);
            if attempt >= attempts || wait > config.max_retry_after || (asked && !last) {
                return Err(error);
            }
            let wait = jittered(wait, config.jitter);
            tracing::debug!(%error, ?wait, "registry request is tried again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(config.retry_pause * 30);
            attempt += 1;
        }
    }

    /// Sends, answers a challenge and sends again.
    async fn authorized(&self, endpoint: &Endpoint, call: &Call) -> Result<Reply, RegistryError> {
        let mut authorization: Option<HeaderValue> = self.authorization(endpoint);
        for round in 0..2 {
            let had_one = authorization.is_some();
            let reply = self.follow(endpoint, call, authorization.take()).await?;
            // A redirect target's challenge is not the registry's: our credentials are not for it.
            if reply.response.status() != StatusCode::UNAUTHORIZED || reply.elsewhere.is_some() {
                return Ok(reply);
            }
            if had_one {
                self.forget_authorization(endpoint);
            }
            let Some(challenge) = challenge::of(reply.response.headers()) else { return Ok(reply) };
            if round == 1 || !self.can_answer(endpoint, &challenge) {
                return Ok(reply);
            }
            // Its connection is free for the next request, also when only one is allowed.
            read_error_body(reply).await;
            authorization = self.answer(endpoint, challenge).await?;
        }
        Err(RegistryError::Protocol { at: self.at(&call.operation), what: "endless challenges".to_owned() })
    }

    async fn status_error(&self, endpoint: &Endpoint, operation: &Operation, reply: Reply) -> RegistryError {
        let place = reply.elsewhere.clone().or_else(|| self.place(endpoint));
        // Where a redirect led, our credentials were not sent.
        let anonymous = self.is_anonymous(endpoint) || reply.elsewhere.is_some();
        refusal(At { place, ..self.at(operation) }, anonymous, reply).await
    }

    /// The endpoint as errors name it; `None` when it is the registry host itself.
    pub(super) fn place(&self, endpoint: &Endpoint) -> Option<String> {
        (server(endpoint) != self.host).then(|| endpoint.origin.clone())
    }
}

/// What an answer that is no success means.
pub(super) async fn refusal(at: At, anonymous: bool, reply: Reply) -> RegistryError {
    let status = reply.response.status();
    let retry_after = retry_after(reply.response.headers());
    let errors = parse_errors(&read_error_body(reply).await);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Unauthorized { at, status, anonymous, errors }
        }
        _ => RegistryError::Status { at, status, errors, retry_after },
    }
}

/// The server may understand its other scheme better: a TLS server that was spoken to in plain HTTP says 400
/// or hangs up.
fn is_wrong_scheme(error: &RegistryError) -> bool {
    match error {
        RegistryError::Connect { .. } | RegistryError::Certificate { .. } => true,
        RegistryError::Status { status, .. } => *status == StatusCode::BAD_REQUEST,
        _ => false,
    }
}

fn server(endpoint: &Endpoint) -> &str {
    super::server(&endpoint.origin)
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

pub(super) fn jittered(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(1.0 + share.clamp(0.0, 1.0) * rand::random::<f64>())
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

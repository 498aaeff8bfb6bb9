//! Credentials, and the tokens that are got with them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use serde::Deserialize;

use super::Session;
use super::challenge::Challenge;
use super::error::{At, Operation, RegistryError};
use super::hosts::{Endpoint, is_loopback};
use super::reply::{Reply, read_bounded};
use super::request::refusal;
use super::tls::Variant;

/// The largest token answer that is read.
const MAX_TOKEN: u64 = 1 << 20;
/// What a token without `expires_in` lives (the token specification's default).
const DEFAULT_LIFETIME: u64 = 60;
/// Cached tokens are thrown away when there are more.
const MAX_CACHED: usize = 1024;

/// Who asks a registry. Never printed.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token, for the token server.
    IdentityToken(String),
    /// A bearer token, for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

impl Credentials {
    /// User name and password; two empty ones are nobody.
    pub fn basic(username: &str, password: &str) -> Self {
        match (username, password) {
            ("", "") => Self::Anonymous,
            // What docker writes for an identity token.
            ("<token>", token) => Self::IdentityToken(token.to_owned()),
            _ => Self::Basic { username: username.to_owned(), password: password.to_owned() },
        }
    }

    /// Whether there are none.
    pub fn is_anonymous(&self) -> bool {
        *self == Self::Anonymous
    }

    fn basic_header(&self) -> Option<HeaderValue> {
        let Self::Basic { username, password } = self else { return None };
        secret(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Tokens got before, per endpoint, repository and credentials.
#[derive(Default)]
pub(super) struct TokenCache(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: String,
    path: String,
    credentials: Credentials,
}

impl TokenCache {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (HeaderValue, Instant)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<HeaderValue> {
        let entries = self.entries();
        let (value, until) = entries.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    fn put(&self, key: Key, value: HeaderValue, lifetime: Duration) {
        let mut entries = self.entries();
        let now = Instant::now();
        if entries.len() >= MAX_CACHED {
            entries.retain(|_, (_, until)| *until > now);
        }
        if entries.len() >= MAX_CACHED {
            entries.clear();
        }
        entries.insert(key, (value, now + lifetime));
    }

    fn forget(&self, key: &Key) {
        self.entries().remove(key);
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Session {
    fn key(&self, endpoint: &Endpoint) -> Key {
        Key {
            origin: endpoint.origin.clone(),
            path: self.path.clone(),
            credentials: self.credentials_for(endpoint).clone(),
        }
    }

    /// The pull's credentials belong to the registry host, not to mirrors; those have their own, or none.
    fn credentials_for<'a>(&'a self, endpoint: &'a Endpoint) -> &'a Credentials {
        match &endpoint.login {
            Some(login) => login,
            None if endpoint.credentials => &self.credentials,
            None => &Credentials::Anonymous,
        }
    }

    /// The endpoint once for each credential that is for it.
    pub(super) fn logins(&self, endpoint: &Endpoint) -> Vec<Endpoint> {
        if endpoint.login.is_some() {
            return vec![endpoint.clone()];
        }
        let own = self.mirrors.get(super::server(&endpoint.origin)).filter(|_| !endpoint.credentials);
        let with = |login: &Credentials| Endpoint { login: Some(login.clone()), ..endpoint.clone() };
        match own.map(Vec::as_slice) {
            None | Some([]) => vec![endpoint.clone()],
            Some(logins) => logins.iter().map(with).collect(),
        }
    }

    pub(super) fn is_anonymous(&self, endpoint: &Endpoint) -> bool {
        self.credentials_for(endpoint).is_anonymous()
    }

    /// What to send without having been asked: a cached token.
    pub(super) fn authorization(&self, endpoint: &Endpoint) -> Option<HeaderValue> {
        if let Credentials::RegistryToken(token) = self.credentials_for(endpoint) {
            return secret(&format!("Bearer {token}"));
        }
        self.client.inner.tokens.get(&self.key(endpoint))
    }

    pub(super) fn forget_authorization(&self, endpoint: &Endpoint) {
        self.client.inner.tokens.forget(&self.key(endpoint));
    }

    /// Whether there is something to answer a challenge with.
    pub(super) fn can_answer(&self, endpoint: &Endpoint, challenge: &Challenge) -> bool {
        match (challenge, self.credentials_for(endpoint)) {
            (Challenge::Basic, credentials) => matches!(credentials, Credentials::Basic { .. }),
            // A token of the registry's was sent already.
            (Challenge::Bearer { .. }, credentials) => !matches!(credentials, Credentials::RegistryToken(_)),
        }
    }

    /// Answers a challenge. `None`: there is nothing to answer with.
    pub(super) async fn answer(
        &self,
        endpoint: &Endpoint,
        challenge: Challenge,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let credentials = self.credentials_for(endpoint);
        let (value, lifetime) = match challenge {
            Challenge::Basic => match credentials.basic_header() {
                // Basic is sent with every request, so it is kept for long.
                Some(value) => (value, Duration::from_secs(3600)),
                None => return Ok(None),
            },
            Challenge::Bearer { realm, service, scope } => {
                if matches!(credentials, Credentials::RegistryToken(_)) {
                    return Ok(None);
                }
                self.token(endpoint, credentials, &realm, service, scope).await?
            }
        };
        self.client.inner.tokens.put(self.key(endpoint), value.clone(), lifetime);
        Ok(Some(value))
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        credentials: &Credentials,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<(HeaderValue, Duration), RegistryError> {
        let mut url = reqwest::Url::parse(realm).map_err(|e| RegistryError::Protocol {
            at: self.at(&Operation::Token(super::error::clip(realm))),
            what: format!("the token server's address is not a URL: {e}"),
        })?;
        let origin = origin_of(&url);
        let at = self.at(&Operation::Token(origin.clone()));
        self.check_realm(endpoint, credentials, &url, &at)?;
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
        let loopback = url.host_str().is_some_and(is_loopback);
        let own = same_host(&url, endpoint);
        let variant = Variant {
            insecure: endpoint.skip_verify && own,
            direct: loopback,
            tls: endpoint.tls.clone().filter(|_| own),
            show: own,
            connect_timeout: endpoint.connect_timeout,
        };
        let pool = self.client.pool(variant)?;
        let request = match credentials {
            Credentials::IdentityToken(token) => {
                let service = service.unwrap_or_default();
                let form = form(&[
                    ("grant_type", "refresh_token"),
                    ("service", &service),
                    ("scope", &scope),
                    ("client_id", "sampan"),
                    ("refresh_token", token),
                ]);
                pool.request(Method::POST, url)
                    .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            _ => {
                if let Some(service) = &service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                url.query_pairs_mut().append_pair("scope", &scope);
                let request = pool.request(Method::GET, url);
                match credentials.basic_header() {
                    Some(value) => request.header(AUTHORIZATION, value),
                    None => request,
                }
            }
        };
        // One of the requests that the server allows at a time, until its answer is read.
        let permit = self.client.permit(&origin, false).await;
        let response = request.timeout(self.client.inner.config.stall_timeout).send().await.map_err(|e| {
            RegistryError::Connect {
                at: at.clone(),
                endpoint: "token server cannot be reached".to_owned(),
                source: super::reply::cause(e, "connect"),
            }
        })?;
        let reply = Reply::of(response, &origin, permit);
        if !reply.response.status().is_success() {
            return Err(refusal(at, credentials.is_anonymous(), reply).await);
        }
        let body = read_bounded(reply, MAX_TOKEN, self.client.inner.config.document_timeout, &at).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| RegistryError::Protocol {
            at: at.clone(),
            // The body may hold a token, so the parser's message is not shown.
            what: "the token server's answer is not JSON".to_owned(),
        })?;
        let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
        let value = secret(&format!("Bearer {token}")).filter(|_| !token.is_empty()).ok_or_else(|| {
            RegistryError::Protocol { at, what: "the token server's answer has no token".to_owned() }
        })?;
        // Renewed a little before its end, so that it does not expire on the way.
        let seconds = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(10, 86_400);
        Ok((value, Duration::from_secs(seconds * 9 / 10)))
    }

    /// Secrets never travel over plain HTTP because a registry that speaks TLS asked for it.
    fn check_realm(
        &self,
        endpoint: &Endpoint,
        credentials: &Credentials,
        url: &reqwest::Url,
        at: &At,
    ) -> Result<(), RegistryError> {
        let plain = url.scheme() != "https";
        let allowed = endpoint.origin.starts_with("http://") || url.host_str().is_some_and(is_loopback);
        let bad =
            !matches!(url.scheme(), "http" | "https") || (plain && !allowed && !credentials.is_anonymous());
        if bad {
            return Err(RegistryError::Protocol {
                at: at.clone(),
                what: "the registry asks for credentials to be sent unencrypted; refused".to_owned(),
            });
        }
        Ok(())
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://form/").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

pub(super) fn origin_of(url: &reqwest::Url) -> String {
    url.origin().ascii_serialization()
}

fn same_host(url: &reqwest::Url, endpoint: &Endpoint) -> bool {
    reqwest::Url::parse(&endpoint.origin).is_ok_and(|e| e.host_str() == url.host_str())
}

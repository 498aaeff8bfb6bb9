//! Who sends a request: client certificates, bearer tokens (of ServiceAccounts and of a static file), in-memory users.
//!
//! A credential that is wrong is 401, also where none would do. Without any the request is anonymous, which opens
//! nothing but health and version.

mod certificate;
#[cfg(test)]
mod tests;
mod token_file;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use sampan_api::Status;

pub use certificate::{ClientCertificate, Verifier};
pub use token_file::TokenFile;

use crate::user::{AUTHENTICATED, UserInfo};
use crate::{ApiServer, Config, Error};

/// What browsers, which cannot set headers, offer as a WebSocket subprotocol instead of a bearer token.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// What everybody may ask without saying who they are.
const ANONYMOUS_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// The user of an in-memory client: put into a request's extensions by [`ApiServer::client`].
#[derive(Clone, Debug)]
pub(crate) struct InMemoryUser(pub(crate) Arc<UserInfo>);

/// What the TLS handshake found out about the peer, in the extensions of each request of the connection.
#[derive(Clone, Debug)]
pub(crate) struct PeerCertificate(pub(crate) Arc<Result<ClientCertificate, String>>);

/// What authentication keeps between requests.
pub struct Authentication {
    verifier: Verifier,
    tokens: TokenFile,
}

impl Authentication {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// When the authority's certificate or the token file is unreadable.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let tokens = match &config.token_auth_file {
            Some(path) => TokenFile::read(path)?,
            None => TokenFile::default(),
        };
        Ok(Self { verifier: Verifier::new(config.pki.ca_pem())?, tokens })
    }

    /// The users of the static token file.
    pub fn token_file(&self) -> &TokenFile {
        &self.tokens
    }

    /// Verifies client certificates.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

/// Finds out who sends the request.
///
/// # Errors
/// 401 when a credential is wrong, or when there is none and the path needs one.
pub async fn authenticate(server: &ApiServer, parts: &Parts) -> Result<UserInfo, Status> {
    if let Some(InMemoryUser(user)) = parts.extensions.get() {
        return Ok((**user).clone());
    }
    let now = Timestamp::now().as_second();
    let mut presented = false;
    if let Some(PeerCertificate(certificate)) = parts.extensions.get() {
        presented = true;
        match &**certificate {
            Ok(certificate) if now < certificate.expires_at => return Ok(certificate.user.clone()),
            Ok(_) => tracing::debug!("client certificate has expired"),
            Err(problem) => tracing::debug!(problem, "client certificate refused"),
        }
    }
    if let Some(token) = bearer_token(parts) {
        presented = true;
        if let Some(mut user) = server.authentication.tokens.user(&token) {
            if !user.is_in(AUTHENTICATED) {
                user.groups.push(AUTHENTICATED.to_owned());
            }
            return Ok(user);
        }
        match server.tokens.verify(&token, &[], &server.authorization, now).await {
            Ok(verified) => return Ok(verified.user),
            Err(error) => tracing::debug!(%error, "bearer token refused"),
        }
    }
    let path = parts.uri.path();
    let open = ANONYMOUS_PATHS
        .iter()
        .any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest == "/"));
    if presented || !open {
        return Err(Status::unauthorized());
    }
    Ok(UserInfo::anonymous())
}

/// Takes bearer tokens out of the headers, once it is known whose they are: what is passed on to kubelets, pods and
/// Services must not carry them.
pub(crate) fn forget_tokens(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let is_token = |protocol: &str| protocol.trim().starts_with(WEBSOCKET_TOKEN);
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::to_owned))
        .collect();
    if !offered.iter().any(|protocol| is_token(protocol)) {
        return;
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    for protocol in offered.iter().filter(|protocol| !is_token(protocol)) {
        if let Ok(value) = HeaderValue::from_str(protocol.trim()) {
            headers.append(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

fn bearer_token(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        // Anything else (Basic, garbage) is a credential that cannot be right: an empty token is refused.
        let text = value.to_str().unwrap_or_default();
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Some(token.map(|(_, token)| token.trim().to_owned()).unwrap_or_default());
    }
    let protocols = parts.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = protocols.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let encoded = offered.find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_TOKEN))?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).unwrap_or_default();
    Some(String::from_utf8(bytes).unwrap_or_default())
}

//! ServiceAccount tokens: issued by TokenRequest, bound to the life of an object, checked without reading the store.

mod jwt;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use request::create_token;

use crate::authorization::Authorization;
use crate::context::RequestContext;
use crate::respond::{Body, Response};
use crate::user::{AUTHENTICATED, UserInfo};
use crate::{ApiServer, Config, Error, reviews};

/// A pod that is being deleted keeps its tokens for this long beyond its grace period, seconds.
const DELETED_POD_LEEWAY: i64 = 60;
/// Tokens issued by a clock that runs ahead of ours are accepted within this many seconds.
const CLOCK_LEEWAY: i64 = 60;

/// Issues and checks tokens.
pub struct Tokens {
    key: jwt::Key,
    issuer: String,
}

/// An object that a token is bound to, or that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Named {
    fn to_value(&self) -> Value {
        if self.uid.is_empty() {
            json!({"name": self.name})
        } else {
            json!({"name": self.name, "uid": self.uid})
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    pub(crate) audiences: Vec<String>,
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
    /// From when on its use is warned about; for the tokens of pods, which live longer than they say.
    pub(crate) warn_after: Option<i64>,
    pub(crate) namespace: String,
    pub(crate) service_account: Named,
    pub(crate) pod: Option<Named>,
    pub(crate) secret: Option<Named>,
    pub(crate) node: Option<Named>,
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whom it stands for.
    pub user: UserInfo,
    /// Its audiences.
    pub audiences: Vec<String>,
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no token of this server, or it was changed.
    #[error("invalid bearer token")]
    Token,
    /// Its time is over, or has not come.
    #[error("service account token has expired")]
    Expired,
    /// The service account or what the token is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// It is meant for somebody else.
    #[error("token audiences {have} is invalid for the target audiences {want}")]
    Audience {
        /// What the token says, in Go's list form.
        have: String,
        /// What was asked for.
        want: String,
    },
}

impl Tokens {
    /// Reads the signing key.
    ///
    /// # Errors
    /// When the key is no ECDSA P-256 key.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::over(config.pki.service_account_key(), &config.cluster_domain)
    }

    fn over(key: &str, cluster_domain: &str) -> Result<Self, Error> {
        Ok(Self {
            key: jwt::Key::from_pem(key)?,
            issuer: format!("https://kubernetes.default.svc.{cluster_domain}"),
        })
    }

    /// Who issues the tokens; also the audience of the API server itself.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token.
    pub(crate) fn issue(&self, claims: &Claims) -> Result<String, Error> {
        let mut private = json!({
            "namespace": claims.namespace,
            "serviceaccount": claims.service_account.to_value(),
        });
        for (field, named) in [("pod", &claims.pod), ("secret", &claims.secret), ("node", &claims.node)] {
            if let Some(named) = named {
                private[field] = named.to_value();
            }
        }
        if let Some(warn_after) = claims.warn_after {
            private["warnafter"] = warn_after.into();
        }
        self.key.sign(&json!({
            "aud": claims.audiences,
            "exp": claims.expires_at,
            "iat": claims.issued_at,
            "iss": self.issuer,
            "jti": request::uuid(),
            "kubernetes.io": private,
            "nbf": claims.issued_at,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account.name),
        }))
    }

    /// Checks a token for one of `audiences` (empty: the API server's own) at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// [`Invalid`], when it must not be accepted.
    pub async fn verify(
        &self,
        token: &str,
        audiences: &[String],
        authorization: &Authorization,
        now: i64,
    ) -> Result<Verified, Invalid> {
        let claims = self.key.verify(token).map_err(|_| Invalid::Token)?;
        if claims["iss"] != self.issuer.as_str() {
            return Err(Invalid::Token);
        }
        let time = |name: &str| claims[name].as_i64();
        if time("exp").is_none_or(|exp| now >= exp) || time("nbf").is_some_and(|nbf| now + CLOCK_LEEWAY < nbf)
        {
            return Err(Invalid::Expired);
        }
        let have: Vec<String> = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            list => serde_json::from_value(list.clone()).unwrap_or_default(),
        };
        let own = [self.issuer.clone()];
        let want = if audiences.is_empty() { &own[..] } else { audiences };
        let both: Vec<String> = want.iter().filter(|audience| have.contains(audience)).cloned().collect();
        if both.is_empty() {
            let list = |list: &[String]| {
                format!("[{}]", list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" "))
            };
            return Err(Invalid::Audience { have: list(&have), want: list(want) });
        }
        let private = &claims["kubernetes.io"];
        if !bound_objects_exist(private, authorization, now) {
            // What was just created may not have reached the indexes yet.
            authorization.catch_up().await;
            if !bound_objects_exist(private, authorization, now) {
                return Err(Invalid::Invalidated);
            }
        }
        Ok(Verified { user: user(&claims), audiences: both })
    }
}

fn bound_objects_exist(private: &Value, authorization: &Authorization, now: i64) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&private["namespace"]);
    let exists = |resource: &str, namespace: &str, named: &Value| {
        let Some(object) = authorization.bound_object(resource, namespace, &text(&named["name"])) else {
            return false;
        };
        let deleted: Option<Timestamp> = object.deletion_timestamp.parse().ok();
        object.uid == text(&named["uid"])
            && deleted.is_none_or(|at| now < at.as_second() + DELETED_POD_LEEWAY)
    };
    if namespace.is_empty() || !exists("serviceaccounts", &namespace, &private["serviceaccount"]) {
        return false;
    }
    let bound = |field: &str, resource: &str| {
        private[field].is_null() || exists(resource, &namespace, &private[field])
    };
    // A node that stands beside a pod is information; alone it is what the token is bound to.
    let node =
        private["node"].is_null() || !private["pod"].is_null() || exists("nodes", "", &private["node"]);
    bound("pod", "pods") && bound("secret", "secrets") && node
}

fn user(claims: &Value) -> UserInfo {
    let private = &claims["kubernetes.io"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&private["namespace"]);
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &Value| {
        if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    add("credential-id", &Value::from(format!("JTI={}", text(&claims["jti"]))));
    add("pod-name", &private["pod"]["name"]);
    add("pod-uid", &private["pod"]["uid"]);
    add("node-name", &private["node"]["name"]);
    add("node-uid", &private["node"]["uid"]);
    UserInfo {
        username: format!("system:serviceaccount:{namespace}:{}", text(&private["serviceaccount"]["name"])),
        uid: text(&private["serviceaccount"]["uid"]),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        extra,
    }
}

/// Answers `/openid/v1/jwks` and `/.well-known/openid-configuration`, from which others can check our tokens.
pub async fn serve_openid(
    server: Arc<ApiServer>,
    context: RequestContext,
    _request: Request<Body>,
) -> Response {
    if context.info.path.contains("jwks") {
        return reviews::answer(200, "application/jwk-set+json", server.tokens.key.jwks().to_string());
    }
    let (host, port) = server.config.advertise;
    let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let document = json!({
        "issuer": server.tokens.issuer,
        "jwks_uri": format!("https://{host}:{port}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    reviews::answer(200, "application/json", document.to_string())
}

//! What `docker login` writes: `config.json`, and the `.dockercfg` before it (IMG-57, IMG-60).

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::{Map, Value};

use super::Login;

/// A docker configuration as far as it is about credentials.
#[derive(Debug, Default)]
pub(crate) struct DockerConfig {
    /// Normalised key and login, in the file's order.
    pub(crate) logins: Vec<(String, Login)>,
    /// All keys, with the spelling that helper programs know them by. Entries without a login are there when
    /// the login is in a credentials store.
    pub(crate) keys: Vec<(String, String)>,
    /// `credHelpers`: helper by normalised key, and the spelling it was given.
    pub(crate) helpers: BTreeMap<String, (String, String)>,
    /// `credsStore`: the helper for everything else.
    pub(crate) store: Option<String>,
}

impl DockerConfig {
    /// Reads a `config.json` (or the content of a `kubernetes.io/dockerconfigjson` Secret).
    ///
    /// # Errors
    /// Malformed JSON, or one entry that cannot be decoded: then nothing of the file counts.
    pub(crate) fn from_config_json(bytes: &[u8]) -> Result<Self, String> {
        let config: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut read = match config.get("auths") {
            Some(Value::Object(auths)) => Self::from_auths(auths)?,
            _ => Self::default(),
        };
        if let Some(Value::Object(helpers)) = config.get("credHelpers") {
            for (key, helper) in helpers {
                if let Some(helper) = helper.as_str().filter(|helper| !helper.is_empty()) {
                    read.helpers.insert(normalise_key(key), (helper.to_owned(), key.clone()));
                }
            }
        }
        let store = config.get("credsStore").and_then(Value::as_str);
        read.store = store.filter(|store| !store.is_empty()).map(str::to_owned);
        Ok(read)
    }

    /// Reads the old form, the entries without anything around them.
    ///
    /// # Errors
    /// As for the new form.
    pub(crate) fn from_dockercfg(bytes: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(bytes).map_err(|error| error.to_string())? {
            Value::Object(auths) => Self::from_auths(&auths),
            _ => Err("not a JSON object".to_owned()),
        }
    }

    fn from_auths(auths: &Map<String, Value>) -> Result<Self, String> {
        let mut read = Self::default();
        for (key, entry) in auths {
            let normalised = normalise_key(key);
            if let Some(login) = login(entry)? {
                read.logins.push((normalised.clone(), login));
            }
            read.keys.push((normalised, key.clone()));
        }
        Ok(read)
    }
}

/// `auth` wins over `username` and `password`. Errors never hold what was decoded.
fn login(entry: &Value) -> Result<Option<Login>, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = text("identitytoken");
    if !token.is_empty() {
        return Ok(Some(Login::IdentityToken(token)));
    }
    let auth = text("auth");
    if auth.is_empty() {
        let (username, password) = (text("username"), text("password"));
        return Ok(
            (!username.is_empty() || !password.is_empty()).then_some(Login::Password { username, password })
        );
    }
    // Tools that wrap long lines leave their breaks; Go's decoder does not see them.
    let auth = auth.replace(['\r', '\n'], "");
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(auth.trim_end_matches('='))
        .map_err(|error| format!("auth is not base64: {error}"))?;
    let decoded = String::from_utf8(decoded).map_err(|_| "auth is not UTF-8".to_owned())?;
    let (username, password) = decoded
        .split_once(':')
        .ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
    Ok(Some(Login::Password { username: username.to_owned(), password: password.to_owned() }))
}

/// Drops the scheme and the paths `/v1/`, `/v2/` and `/`.
pub(super) fn normalise_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).unwrap_or(path);
    let path = if matches!(path, "/v1" | "/v2") { "" } else { path }.trim_start_matches('/');
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(json: &Value) -> Vec<String> {
        let config = DockerConfig::from_config_json(json.to_string().as_bytes()).unwrap();
        config.logins.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn img_60_keys_are_normalised() {
        for (key, expected) in [
            ("https://a.io/v1/", "a.io"),
            ("http://a.io/v2/", "a.io"),
            ("a.io/v2/x", "a.io/x"),
            ("a.io/", "a.io"),
            ("a.io:5000/team", "a.io:5000/team"),
            ("https://index.docker.io/v1/", "index.docker.io"),
        ] {
            assert_eq!(normalise_key(key), expected);
        }
    }

    #[test]
    fn img_60_auth_is_decoded_padded_or_not_and_wins() {
        let password = |auth: &str| {
            let json =
                serde_json::json!({"auths": {"a.io": {"auth": auth, "username": "no", "password": "no"}}});
            let config = DockerConfig::from_config_json(json.to_string().as_bytes())?;
            Ok::<_, String>(config.logins[0].1.clone())
        };
        let expected = Login::Password { username: "us".into(), password: "p:w".into() };
        assert_eq!(password("dXM6cDp3").unwrap(), expected);
        assert_eq!(password("dXM6cHc=").unwrap(), password("dXM6cHc").unwrap());
        assert_eq!(password("dXM6\r\ncHc=\n").unwrap(), password("dXM6cHc").unwrap());
        for bad in ["!!", "bm9jb2xvbg=="] {
            assert!(password(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn img_57_unknown_members_are_ignored() {
        let json = serde_json::json!({"auths": {"a.io": {"username": "u", "password": "p", "email": "e", "x": 1}},
            "HttpHeaders": {"User-Agent": "Docker"}, "credHelpers": {"b.io": "ecr-login"}, "credsStore": "pass"});
        assert_eq!(keys(&json), ["a.io"]);
        let config = DockerConfig::from_config_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(config.helpers["b.io"].0, "ecr-login");
        assert_eq!(config.store.as_deref(), Some("pass"));
    }

    #[test]
    fn the_old_form_has_nothing_around_it() {
        let json = br#"{"https://a.io/v1/": {"auth": "dXM6cHc=", "email": "e"}}"#;
        assert_eq!(DockerConfig::from_dockercfg(json).unwrap().logins[0].0, "a.io");
        assert!(DockerConfig::from_dockercfg(b"[]").is_err());
    }
}

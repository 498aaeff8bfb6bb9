//! Registry credentials of a pod: `imagePullSecrets` folded into one keyring, matched by host and path
//! (IMG-60 to IMG-68).

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::image_name;

/// One credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Credentials by registry key. One key may have several, which are all tried.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Normalised keys: host, port and path without a scheme.
    entries: Vec<(String, Credential)>,
}

impl Keyring {
    /// Folds the docker-config Secrets of a pod into one keyring, in their order; other types and empty ones
    /// are ignored (IMG-67, IMG-68).
    ///
    /// # Errors
    /// A Secret whose content cannot be read (IMG-89).
    pub fn from_secrets(secrets: &[Secret]) -> Result<Self, String> {
        let mut keyring = Self::default();
        for secret in secrets {
            let data = secret.data.as_ref();
            let of = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
            let (bytes, wrapped) = match secret.type_.as_deref() {
                Some("kubernetes.io/dockerconfigjson") => (of(".dockerconfigjson"), true),
                Some("kubernetes.io/dockercfg") => (of(".dockercfg"), false),
                _ => continue,
            };
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { continue };
            keyring.add_docker_config(bytes, wrapped)?;
        }
        Ok(keyring)
    }

    /// Adds the content of a docker configuration: `wrapped` in `auths`, or the bare old form.
    ///
    /// # Errors
    /// Malformed JSON or an undecodable `auth`.
    pub fn add_docker_config(&mut self, bytes: &[u8], wrapped: bool) -> Result<(), String> {
        let config: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let auths = if wrapped { config.get("auths") } else { Some(&config) };
        let Some(Value::Object(auths)) = auths else { return Ok(()) };
        for (key, entry) in auths {
            if let Some(credential) = credential(entry)? {
                self.entries.push((normalise_key(key), credential));
            }
        }
        Ok(())
    }

    /// The credentials for `image`, the most specific key first (IMG-65).
    #[must_use]
    pub fn lookup(&self, image: &str) -> Vec<Credential> {
        let Ok(name) = image_name::parse(image) else { return Vec::new() };
        let mut matching: Vec<&(String, Credential)> =
            self.entries.iter().filter(|(key, _)| key_matches(key, &name.repository)).collect();
        if matching.is_empty() && name.repository.starts_with("docker.io/") {
            matching = self.entries.iter().filter(|(key, _)| key == "index.docker.io").collect();
        }
        // Reverse lexical order of keys; the sort is stable, so one key's credentials keep their order.
        matching.sort_by(|(a, _), (b, _)| b.cmp(a));
        let mut found: Vec<Credential> = Vec::new();
        for (_, credential) in matching {
            if !found.contains(credential) {
                found.push(credential.clone());
            }
        }
        found
    }
}

fn credential(entry: &Value) -> Result<Option<Credential>, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let auth = text("auth");
    if auth.is_empty() {
        let (username, password) = (text("username"), text("password"));
        return Ok(
            (!username.is_empty() || !password.is_empty()).then_some(Credential { username, password })
        );
    }
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(auth.trim_end_matches('='))
        .map_err(|error| error.to_string())?;
    let decoded = String::from_utf8(decoded).map_err(|error| error.to_string())?;
    let (username, password) = decoded
        .split_once(':')
        .ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
    Ok(Some(Credential { username: username.to_owned(), password: password.to_owned() }))
}

/// Drops the scheme and the paths `/v1/`, `/v2/` and `/` (IMG-60).
fn normalise_key(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).unwrap_or(path);
    let path = if matches!(path, "/v1" | "/v2") { "" } else { path }.trim_start_matches('/');
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Host by glob, port equal, path a plain prefix (IMG-61, IMG-62).
fn key_matches(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let split_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name.to_owned(), port.to_owned()),
        _ => (host.to_owned(), String::new()),
    };
    let ((key_name, key_port), (name, port)) = (split_port(key_host), split_port(host));
    key_port == port && host_matches(&key_name, &name) && path.starts_with(key_path)
}

/// Label by label. As the documentation has it (DESIGN.md), a first label `*name` matches the host and any
/// subdomain of it.
fn host_matches(pattern: &str, host: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix('*')
        && !suffix.starts_with('.')
        && !suffix.is_empty()
        && !suffix.contains(['*', '?', '['])
    {
        return host.ends_with(suffix);
    }
    let patterns: Vec<&str> = pattern.split('.').collect();
    let labels: Vec<&str> = host.split('.').collect();
    patterns.len() == labels.len()
        && patterns.iter().zip(labels).all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

/// Shell globs: `*`, `?`, `[a-z]`, `[^x]`, backslash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((b'?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let Some((first, text)) = text.split_first() else { return false };
            let (negated, class) = match rest[..end].strip_prefix(b"^") {
                Some(class) => (true, class),
                None => (false, &rest[..end]),
            };
            let mut matched = false;
            let mut at = 0;
            while at < class.len() {
                if at + 2 < class.len() && class[at + 1] == b'-' {
                    matched |= (class[at]..=class[at + 2]).contains(first);
                    at += 3;
                } else {
                    matched |= class[at] == *first;
                    at += 1;
                }
            }
            matched != negated && glob(&rest[end + 1..], text)
        }
        Some((b'\\', rest)) => match (rest.split_first(), text.split_first()) {
            (Some((escaped, rest)), Some((first, text))) => escaped == first && glob(rest, text),
            _ => false,
        },
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keyring(keys: &[&str]) -> Keyring {
        let mut keyring = Keyring::default();
        for (at, key) in keys.iter().enumerate() {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("u{at}:p:{at}"));
            let json = serde_json::json!({"auths": {*key: {"auth": auth}}});
            keyring.add_docker_config(json.to_string().as_bytes(), true).unwrap();
        }
        keyring
    }

    fn users(keys: &[&str], image: &str) -> Vec<String> {
        keyring(keys).lookup(image).into_iter().map(|credential| credential.username).collect()
    }

    #[test]
    fn img_60_61_62_matching() {
        for (key, image, expected) in [
            ("https://a.io/v1/", "a.io/x", true),
            ("*.kubernetes.io", "a.kubernetes.io/x", true),
            ("*.kubernetes.io", "kubernetes.io/x", false),
            ("*.kubernetes.io", "a.b.kubernetes.io/x", false),
            ("prefix.*.io", "prefix.a.io/x", true),
            ("[a-c]x.io", "bx.io/y", true),
            ("a.io:5000", "a.io/x", false),
            ("a.io:5000", "a.io:5000/x", true),
            ("bar.example.com/pong", "bar.example.com/pongz", true),
            ("bar.example.com/pong", "bar.example.com/ping", false),
            // The documentation's rule, see DESIGN.md.
            ("*my-registry.io/images", "my-registry.io/images/a", true),
            ("*my-registry.io/images", "sub.my-registry.io/images/a", true),
            ("*my-registry.io/images", "a.sub.my-registry.io/images/a", true),
        ] {
            assert_eq!(!users(&[key], image).is_empty(), expected, "{key} {image}");
        }
    }

    #[test]
    fn img_63_docker_hub() {
        assert_eq!(users(&["https://index.docker.io/v1/"], "busybox"), ["u0"]);
        assert!(users(&["https://index.docker.io/v1/"], "quay.io/x").is_empty());
    }

    #[test]
    fn img_65_longer_paths_come_first() {
        assert_eq!(users(&["a.io", "a.io/x/y", "a.io/x"], "a.io/x/y/z"), ["u1", "u2", "u0"]);
    }

    #[test]
    fn img_68_other_secrets_are_ignored() {
        let opaque = Secret { type_: Some("Opaque".into()), ..Default::default() };
        assert!(Keyring::from_secrets(&[opaque]).unwrap().entries.is_empty());
    }
}

//! `WWW-Authenticate`: which proof a registry asks for (RFC 9110, section 11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// A challenge that this client can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password.
    Basic,
    /// A token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Headers longer than this are not read.
const LIMIT: usize = 8 << 10;

/// The strongest challenge of a response: Bearer before Basic.
pub(super) fn of(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE).iter().take(8) {
        // A realm in another language is no reason not to ask for credentials.
        for challenge in parse(&String::from_utf8_lossy(value.as_bytes())) {
            match challenge {
                Challenge::Bearer { .. } => return Some(challenge),
                Challenge::Basic => found = Some(challenge),
            }
        }
    }
    found
}

/// All known challenges of one header line.
pub(super) fn parse(text: &str) -> Vec<Challenge> {
    let mut out = Vec::new();
    if text.len() > LIMIT {
        return out;
    }
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '\t']).unwrap_or(rest.len());
        let scheme = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let mut params = Vec::new();
        while let Some((key, value, after)) = param(rest) {
            params.push((key, value));
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        rest = rest.trim_start_matches(',').trim_start();
        let get = |name: &str| params.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        match scheme.as_str() {
            "basic" => out.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = get("realm") {
                    out.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
            }
            // Unknown schemes and garbage: go on behind them.
            _ => {}
        }
        if end == 0 && params.is_empty() {
            break;
        }
    }
    out
}

/// `key=value` or `key="quoted value"` at the start of `text`.
fn param(text: &str) -> Option<(String, String, &str)> {
    let equals = text.find('=')?;
    let key = &text[..equals];
    let token = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b))
    };
    if !token(key) {
        return None;
    }
    let rest = &text[equals + 1..];
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        return Some((key.to_ascii_lowercase(), rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((key.to_ascii_lowercase(), value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn the_usual_ones() {
        assert_eq!(
            parse(r#"Bearer realm="https://a/token",service="reg",scope="repository:a/b:pull,push""#),
            [bearer("https://a/token", Some("reg"), Some("repository:a/b:pull,push"))]
        );
        assert_eq!(parse("Basic realm=\"x, y\""), [Challenge::Basic]);
        assert_eq!(parse("BASIC"), [Challenge::Basic]);
        assert_eq!(parse(r#"Basic realm="a", Bearer realm = "b""#).first(), Some(&Challenge::Basic));
        assert_eq!(
            parse(r#"Digest realm="a\"b", qop=auth, Bearer realm="c" , service=d"#),
            [bearer("c", Some("d"), None)]
        );
        assert!(parse("Bearer service=\"x\"").is_empty(), "no realm, no token");
        assert!(parse("Bearer realm=\"unterminated").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics_or_hangs(s in "[ -~]{0,200}") {
            let _ = parse(&s);
        }
    }
}

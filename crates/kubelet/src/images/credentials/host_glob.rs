//! Whether a key of a docker configuration means a repository: host by glob, port equal, path a plain prefix
//! (IMG-61, IMG-62). The same rule holds for `matchImages` of plugins.

/// Whether `key` (normalised) is for `repository` (normalised, without tag).
pub(crate) fn key_matches(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let ((key_name, key_port), (name, port)) = (split_port(key_host), split_port(host));
    key_port == port && host_matches(key_name, name) && path.starts_with(key_path)
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

/// Label by label with equal count; and, as the documentation has it (DESIGN.md), a first label `*name` means
/// the host `name…` and any subdomain of it as well.
fn host_matches(pattern: &str, host: &str) -> bool {
    let patterns: Vec<&str> = pattern.split('.').collect();
    let labels: Vec<&str> = host.split('.').collect();
    // The brackets of an IPv6 address are no class.
    if pattern == host || labels_match(&patterns, &labels) {
        return true;
    }
    match patterns[0].strip_prefix('*') {
        Some(rest) if !rest.is_empty() && labels.len() >= patterns.len() => {
            let own = [&[rest], &patterns[1..]].concat();
            labels_match(&own, &labels[labels.len() - own.len()..])
        }
        _ => false,
    }
}

fn labels_match(patterns: &[&str], labels: &[&str]) -> bool {
    patterns.len() == labels.len()
        && patterns.iter().zip(labels).all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

/// Shell globs: `*`, `?`, `[a-z]`, `[^x]`, backslash. Linear but for going back to the last star: a Secret
/// full of stars costs nobody anything.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let matched = match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
                continue;
            }
            None if seen == text.len() => return true,
            Some(_) => text.get(seen).and_then(|byte| one(&pattern[at..], *byte)),
            None => None,
        };
        match (matched, star) {
            (Some(taken), _) => (at, seen) = (at + taken, seen + 1),
            // The last star takes one more.
            (None, Some((after, from))) if from < text.len() => {
                star = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Whether the pattern's first element means `byte`; how long that element is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let (negated, class) = match rest[..end].strip_prefix(b"^") {
                Some(class) => (true, class),
                None => (false, &rest[..end]),
            };
            let mut matched = false;
            let mut at = 0;
            while at < class.len() {
                if at + 2 < class.len() && class[at + 1] == b'-' {
                    matched |= (class[at]..=class[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    matched |= class[at] == byte;
                    at += 1;
                }
            }
            (matched != negated).then_some(end + 2)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_61_62_hosts_ports_and_paths() {
        for (key, repository, expected) in [
            ("*.kubernetes.io", "a.kubernetes.io/x", true),
            ("*.kubernetes.io", "kubernetes.io/x", false),
            ("*.kubernetes.io", "a.b.kubernetes.io/x", false),
            ("prefix.*.io", "prefix.a.io/x", true),
            ("*-good.kubernetes.io", "is-good.kubernetes.io/x", true),
            ("*-good.kubernetes.io", "bad.kubernetes.io/x", false),
            ("[a-c]x.io", "bx.io/y", true),
            ("[^a]x.io", "ax.io/y", false),
            ("a?.io", "ab.io/y", true),
            ("a\\*.io", "ab.io/y", false),
            ("a.io:5000", "a.io/x", false),
            ("a.io:5000", "a.io:5000/x", true),
            ("a.io:*", "a.io:5000/x", false),
            ("bar.example.com/pong", "bar.example.com/pongz", true),
            ("bar.example.com/pong", "bar.example.com/pong/pang", true),
            ("bar.example.com/pong", "bar.example.com/ping", false),
            ("bar.example.com/p*", "bar.example.com/pong", false),
            // The documentation's rule, see DESIGN.md.
            ("*my-registry.io/images", "my-registry.io/images/a", true),
            ("*my-registry.io/images", "sub.my-registry.io/images/a", true),
            ("*my-registry.io/images", "a.sub.my-registry.io/images/a", true),
            ("*my-registry.io/images", "my-registry.io/other", false),
            ("*my-registry.io", "a.not-my-registry.io/x", false),
            ("[::1]:5000", "[::1]:5000/x", true),
        ] {
            assert_eq!(key_matches(key, repository), expected, "{key} {repository}");
        }
    }

    #[test]
    fn a_key_full_of_stars_is_cheap() {
        let key = format!("{}b", "*a".repeat(2_000));
        assert!(!key_matches(&key, &format!("{}/x", "a".repeat(4_000))));
    }
}

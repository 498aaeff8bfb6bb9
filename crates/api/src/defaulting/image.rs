//! The default pull policy, which follows from the image's tag (IMG-18).

/// `Always` for an explicit or implied tag `latest`, else `IfNotPresent`; also for names that cannot be parsed.
pub fn default_pull_policy(image: &str) -> &'static str {
    if tag(image).as_deref() == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag, `latest` when there is neither tag nor digest; None for a digest alone or an unparsable name.
fn tag(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match name[slash..].split_once(':') {
        Some((last, tag)) => (&name[..slash + last.len()], Some(tag)),
        None => (name, None),
    };
    if !repository_ok(repository) || tag.is_some_and(|t| !tag_ok(t)) || digest.is_some_and(|d| !digest_ok(d))
    {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, None) => Some("latest".to_owned()),
        (None, Some(_)) => None,
    }
}

fn tag_ok(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn digest_ok(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64,
        Some(("sha384", hex)) => hex.len() == 96,
        Some(("sha512", hex)) => hex.len() == 128,
        _ => false,
    };
    length
        && digest
            .split_once(':')
            .is_some_and(|(_, hex)| hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

fn repository_ok(repository: &str) -> bool {
    let (host, path) = match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, repository),
    };
    let hex_id = repository.len() == 64 && repository.bytes().all(|c| c.is_ascii_hexdigit());
    !hex_id && host.is_none_or(host_ok) && path.len() <= 255 && path.split('/').all(component_ok)
}

fn host_ok(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let v6 = name.starts_with('[') && name.ends_with(']');
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    (v6 || name.split('.').all(label))
        && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()))
}

fn component_ok(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alnum) || !component.ends_with(alnum) {
        return false;
    }
    component
        .split(alnum)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::default_pull_policy;

    #[test]
    fn img_18_pull_policy_follows_the_tag() {
        let digest = format!("x@sha256:{}", "a".repeat(64));
        let tagged = format!("x:latest@sha256:{}", "a".repeat(64));
        for (image, policy) in [
            ("x", "Always"),
            ("x:latest", "Always"),
            ("x:1", "IfNotPresent"),
            ("host:5000/x", "Always"),
            ("host:5000/x:1", "IfNotPresent"),
            (digest.as_str(), "IfNotPresent"),
            (tagged.as_str(), "Always"),
            ("FAILED_IMAGE", "IfNotPresent"),
            ("http://root", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }
}

//! Image names as the kubelet needs them: are they well-formed, and which repository do credentials have to
//! match (IMG-01 to IMG-15)? What is fetched is the runtime's business.

/// A parsed image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// Host and path, normalised: `docker.io/library/busybox`.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest is given, empty with only a digest.
    pub tag: String,
    /// The digest or empty.
    pub digest: String,
}

/// Parses `image`.
///
/// # Errors
/// Upstream's text (IMG-14), for IMG-28.
pub fn parse(image: &str) -> Result<ImageName, String> {
    parse_inner(image).map_err(|cause| format!("couldn't parse image name {image:?}: {cause}"))
}

/// The string that the runtime is asked for: as the user wrote it, with `:latest` when nothing says otherwise
/// (IMG-16).
///
/// # Errors
/// As [`parse`].
pub fn with_default_tag(image: &str) -> Result<String, String> {
    let name = parse(image)?;
    let (without_digest, _) = image.split_once('@').unwrap_or((image, ""));
    let tagged = without_digest.rsplit('/').next().unwrap_or_default().contains(':');
    Ok(if tagged || !name.digest.is_empty() { image.to_owned() } else { format!("{image}:latest") })
}

const INVALID: &str = "invalid reference format";

fn parse_inner(image: &str) -> Result<ImageName, String> {
    if image.len() == 64 && image.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, check_digest(digest)?),
        None => (image, ""),
    };
    let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        Some(colon) => (&rest[..last_slash + colon], &rest[last_slash + colon + 1..]),
        None => (rest, ""),
    };
    if rest.len() > name.len() && !is_tag(tag) {
        return Err(INVALID.to_owned());
    }
    let (host, path) = split_host(name);
    let path =
        if host == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{INVALID}: repository name ({path}) must be lowercase"));
    }
    if !is_host(&host) || !path.split('/').all(is_path_component) {
        return Err(INVALID.to_owned());
    }
    if path.len() > 255 {
        return Err("repository name must not be more than 255 characters".to_owned());
    }
    let tag = if tag.is_empty() && digest.is_empty() { "latest" } else { tag };
    Ok(ImageName { repository: format!("{host}/{path}"), tag: tag.to_owned(), digest: digest.to_owned() })
}

/// The host and the path; names without a host are Docker Hub's (IMG-02, IMG-04, IMG-05).
fn split_host(name: &str) -> (String, &str) {
    match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            let host = if first == "index.docker.io" { "docker.io" } else { first };
            (host.to_owned(), path)
        }
        _ => ("docker.io".to_owned(), name),
    }
}

fn check_digest(digest: &str) -> Result<&str, String> {
    let (algorithm, hex) = digest.split_once(':').ok_or(INVALID)?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("invalid checksum digest format".to_owned());
    }
    Ok(digest)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().enumerate().all(|(at, byte)| word(byte) || at > 0 && matches!(byte, b'.' | b'-'))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, port)) => {
                if ip.is_empty() || !ip.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                    return false;
                }
                ("localhost", port)
            }
            None => return false,
        },
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    port_is_good
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Lower-case words joined by `.`, `_`, `__` or hyphens (IMG-10).
fn is_path_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(*first) || !word(*last) {
        return false;
    }
    component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn img_02_03_07_12_15_names_are_normalised() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, repository, tag, has_digest) in [
            ("root", "docker.io/library/root", "latest", false),
            ("root:tag", "docker.io/library/root", "tag", false),
            ("user/repo", "docker.io/user/repo", "latest", false),
            ("docker.io/ubuntu", "docker.io/library/ubuntu", "latest", false),
            ("index.docker.io/x", "docker.io/library/x", "latest", false),
            ("url:5000/repo", "url:5000/repo", "latest", false),
            ("url:5000/repo:tag", "url:5000/repo", "tag", false),
            ("foo:5000", "docker.io/library/foo", "5000", false),
            ("[::1]:5000/x", "[::1]:5000/x", "latest", false),
            (&format!("root@{digest}"), "docker.io/library/root", "", true),
            (&format!("root:t@{digest}"), "docker.io/library/root", "t", true),
        ] {
            let name = parse(image).unwrap();
            assert_eq!((name.repository.as_str(), name.tag.as_str()), (repository, tag), "{image}");
            assert_eq!(!name.digest.is_empty(), has_digest);
        }
    }

    #[test]
    fn img_11_13_14_bad_names() {
        let hex = "a".repeat(64);
        for (image, cause) in [
            ("ROOT", "invalid reference format: repository name (library/ROOT) must be lowercase".to_owned()),
            ("http://root", INVALID.to_owned()),
            (
                hex.as_str(),
                format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"),
            ),
            ("a:-b", INVALID.to_owned()),
            ("a..b/c", INVALID.to_owned()),
            ("", INVALID.to_owned()),
            ("root@sha256:ab", "invalid checksum digest length".to_owned()),
        ] {
            assert_eq!(parse(image).unwrap_err(), format!("couldn't parse image name {image:?}: {cause}"));
        }
    }

    #[test]
    fn img_16_the_default_tag_is_appended_as_written() {
        let digested = format!("root:latest@sha256:{}", "a".repeat(64));
        for (image, expected) in [
            ("root", "root:latest"),
            ("root:1", "root:1"),
            ("h:5000/a", "h:5000/a:latest"),
            (&digested, &digested),
        ] {
            assert_eq!(with_default_tag(image).unwrap(), expected);
        }
    }
}

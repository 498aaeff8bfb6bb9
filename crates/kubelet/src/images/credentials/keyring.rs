//! Credentials by registry key, and which of them are for an image (IMG-63 to IMG-67).

use super::host_glob::key_matches;
use super::{Credential, DockerConfig, Login, Source};

/// Credentials of one source. One key may have several, which are all tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    entries: Vec<Credential>,
}

impl Keyring {
    /// Adds what a docker configuration holds.
    pub(crate) fn add(&mut self, config: DockerConfig, source: &Source) {
        self.add_logins(&config.logins, source);
    }

    /// Adds logins by normalised key.
    pub(crate) fn add_logins(&mut self, logins: &[(String, Login)], source: &Source) {
        self.entries.extend(logins.iter().cloned().map(|(key, login)| Credential {
            key,
            login,
            source: source.clone(),
        }));
    }

    /// Adds another keyring's credentials after the own ones.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.entries.extend(other.entries.iter().cloned());
    }

    /// The credentials for `repository` (normalised), the most specific key first.
    pub(crate) fn lookup(&self, repository: &str) -> Vec<Credential> {
        let mut matching: Vec<&Credential> =
            self.entries.iter().filter(|entry| key_matches(&entry.key, repository)).collect();
        if matching.is_empty() && repository.starts_with("docker.io/") {
            matching = self.entries.iter().filter(|entry| entry.key == "index.docker.io").collect();
        }
        // Reverse lexical order of keys; the sort is stable, so one key's credentials keep their order.
        matching.sort_by(|a, b| b.key.cmp(&a.key));
        matching.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(keys: &[&str], repository: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        for (at, key) in keys.iter().enumerate() {
            let json = serde_json::json!({"auths": {*key: {"username": format!("u{at}"), "password": "p"}}});
            let config = DockerConfig::from_config_json(json.to_string().as_bytes()).unwrap();
            keyring.add(config, &Source::NodeFile { path: format!("{at}").into() });
        }
        let path = |source| match source {
            Source::NodeFile { path } => path.display().to_string(),
            _ => String::new(),
        };
        keyring.lookup(repository).into_iter().map(|credential| path(credential.source)).collect()
    }

    #[test]
    fn img_63_docker_hub_is_the_last_resort() {
        let hub = "https://index.docker.io/v1/";
        assert_eq!(keys(&[hub], "docker.io/library/busybox"), ["0"]);
        assert_eq!(keys(&[hub, "docker.io"], "docker.io/library/busybox"), ["1"]);
        assert!(keys(&[hub], "quay.io/x").is_empty());
    }

    #[test]
    fn img_65_longer_paths_come_first() {
        assert_eq!(keys(&["a.io", "a.io/x/y", "a.io/x"], "a.io/x/y/z"), ["1", "2", "0"]);
    }

    #[test]
    fn img_67_one_key_of_two_secrets_gives_both_in_order() {
        assert_eq!(keys(&["a.io", "a.io"], "a.io/x"), ["0", "1"]);
    }
}

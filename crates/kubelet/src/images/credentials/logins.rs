//! The credentials that a kubelet of this machine would find, for somebody beside it who asks registries: what pins
//! tags to digests.

use std::path::Path;

use k8s_openapi::api::core::v1::Secret;

use super::{Login, NodeCredentials, PullSecrets, at_mirror};
use crate::image_name;
use crate::images::config::ImageConfig;

/// The node's file, its helpers and its plugins, beside Secrets that are given.
#[derive(Debug)]
pub struct RegistryLogins(NodeCredentials);

/// User and password of each credential, in the order in which a kubelet would try them; a token's user is
/// `<token>`.
#[derive(Clone, Default)]
pub struct Logins {
    /// For the image's registry.
    pub registry: Vec<(String, String)>,
    /// For its mirrors, by their `host[:port]`.
    pub mirrors: Vec<(String, (String, String))>,
}

impl RegistryLogins {
    /// `root` is the kubelet's directory.
    ///
    /// # Errors
    /// What is wrong with the configuration of plugins (IMG-75).
    pub fn new(config: &ImageConfig, root: &Path) -> Result<Self, String> {
        NodeCredentials::new(config, root).map(Self)
    }

    /// What is for `image` and for these mirrors of it. Plugins that want a pod's ServiceAccount are not asked.
    ///
    /// # Errors
    /// A name that is none, or a Secret that cannot be read; nothing secret is in the text.
    pub async fn find(
        &self,
        secrets: Vec<Secret>,
        image: &str,
        mirrors: &[String],
    ) -> Result<Logins, String> {
        let repository = image_name::parse(image)?.repository;
        let keyring = PullSecrets::of(secrets).keyring();
        let keyring =
            keyring.map_err(|malformed| format!("Secret {}: {}", malformed.secret, malformed.error))?;
        let mut logins = Logins::default();
        let found = self.0.look_up(None, &keyring, &repository).await;
        logins.registry.extend(found.into_iter().map(|credential| pair(credential.login)));
        for host in mirrors {
            let found = self.0.look_up(None, &keyring, &at_mirror(host, &repository)).await;
            let found = found.into_iter().map(|credential| (host.clone(), pair(credential.login)));
            logins.mirrors.extend(found);
        }
        Ok(logins)
    }
}

fn pair(login: Login) -> (String, String) {
    match login {
        Login::Password { username, password } => (username, password),
        Login::IdentityToken(token) => ("<token>".to_owned(), token),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn secrets_come_before_the_nodes_file_and_mirrors_have_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"auths":{"far.io":{"username":"node","password":"1"},"mirror.lan:5000":{"username":"m","password":"2"}}}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let images =
            ImageConfig { credential_search_dirs: Some(vec![dir.path().to_owned()]), ..Default::default() };
        let logins = RegistryLogins::new(&images, dir.path()).unwrap();
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "s", "namespace": "d"}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {}, "data": {".dockerconfigjson": base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                r#"{"auths":{"far.io/x":{"identitytoken":"t"}}}"#)}}))
        .unwrap();
        let mirrors = ["mirror.lan:5000".to_owned(), "other.lan".to_owned()];
        let found = logins.find(vec![secret], "far.io/x:1", &mirrors).await.unwrap();
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(found.registry, [pair("<token>", "t"), pair("node", "1")]);
        assert_eq!(found.mirrors, [("mirror.lan:5000".to_owned(), pair("m", "2"))]);
    }
}

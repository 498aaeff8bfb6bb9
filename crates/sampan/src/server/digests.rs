//! What the `DigestPinning` admission plugin asks: the registry client, with the pod's Secrets and the node's own
//! credentials, as the pull will have them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use sampan_apiserver::admission::DigestResolver;
use sampan_kubelet::{ImageConfig, RegistryLogins};
use sampan_oci::Reference;
use sampan_oci::registry::{Client, ClientConfig, Credentials, RegistryError};
use serde_json::Value;

use crate::config::NodeConfig;

/// Asks registries as pulls do: same mirrors, same certificates.
pub(super) struct RegistryDigests {
    client: Client,
    logins: RegistryLogins,
}

impl RegistryDigests {
    pub(super) fn new(config: &NodeConfig) -> Result<Self> {
        let images = ImageConfig {
            image_credential_provider_config: config.image_credential_provider_config.clone(),
            image_credential_provider_bin_dir: config.image_credential_provider_bin_dir.clone(),
            ..ImageConfig::default()
        };
        let logins = RegistryLogins::new(&images, &config.data_dir.join("kubelet"))
            .map_err(anyhow::Error::msg)
            .context("registry credentials of the node")?;
        let config = ClientConfig {
            insecure: config.insecure_registries.iter().cloned().collect(),
            certs_d: config.registry_hosts_dirs.clone(),
            ..ClientConfig::default()
        };
        Ok(Self { client: Client::new(config).context("making a registry client")?, logins })
    }

    async fn ask(
        &self,
        image: &Reference,
        credentials: Credentials,
        mirrors: HashMap<String, Vec<Credentials>>,
    ) -> Result<String, RegistryError> {
        let session = self.client.session(image, credentials).with_mirror_logins(mirrors);
        let version = image.version();
        let said = match session.resolve(&version).await {
            Ok(said) => said,
            // It may not know this kind of request; and its own words come only with the other kind.
            Err(error) if error.is_refusal() => None,
            Err(error) => return Err(error),
        };
        match said {
            Some(digest) => Ok(digest.to_string()),
            None => Ok(session.manifest(&version).await?.digest.to_string()),
        }
    }
}

#[async_trait::async_trait]
impl DigestResolver for RegistryDigests {
    async fn digest(&self, image: &str, pull_secrets: &[Value]) -> Result<Option<String>, String> {
        let reference = Reference::parse(image).map_err(|error| error.to_string())?;
        // The runtime answers it itself: no registry has its images.
        if reference.host() == sampan_runtime::builtin::HOST {
            return Ok(None);
        }
        let secrets =
            pull_secrets.iter().filter_map(|secret| serde_json::from_value::<Secret>(secret.clone()).ok());
        // A broken file about the host is for the request to tell.
        let mirrors = self.client.mirrors(reference.host()).unwrap_or_default();
        let logins = self.logins.find(secrets.collect(), image, &mirrors).await?;
        let mut credentials: Vec<Credentials> =
            logins.registry.iter().map(|(user, password)| Credentials::basic(user, password)).collect();
        if credentials.is_empty() {
            credentials.push(Credentials::Anonymous);
        }
        let mut of_mirrors: HashMap<String, Vec<Credentials>> = HashMap::new();
        for (host, (user, password)) in logins.mirrors {
            of_mirrors.entry(host).or_default().push(Credentials::basic(&user, &password));
        }
        let mut refusals = Vec::new();
        for credentials in credentials {
            match self.ask(&reference, credentials, of_mirrors.clone()).await {
                Ok(digest) => return Ok(Some(digest)),
                Err(error) => refusals.push(chain(&error)),
            }
        }
        Err(refusals.join("; "))
    }
}

/// An error with its causes, each told once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sampan_oci::Digest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// An image of a registry that always answers so.
    async fn image(head: String, get: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let image = format!("{}/team/app:1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                let answer = if request.starts_with(b"HEAD ") { &head } else { &get };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        image
    }

    #[tokio::test]
    async fn a_registry_that_refuses_the_question_is_asked_for_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let images = ImageConfig {
            credential_search_dirs: Some(vec![dir.path().to_owned()]),
            ..ImageConfig::default()
        };
        let digests = RegistryDigests {
            client: Client::new(ClientConfig::default()).unwrap(),
            logins: RegistryLogins::new(&images, dir.path()).unwrap(),
        };
        let manifest = r#"{"schemaVersion":2}"#;
        let without_head = image(answer("405 Method Not Allowed", ""), answer("200 OK", manifest)).await;
        let found = digests.digest(&without_head, &[]).await;
        assert_eq!(found, Ok(Some(Digest::sha256(manifest.as_bytes()).to_string())));
        let words = r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#;
        let closed = image(answer("403 Forbidden", ""), answer("403 Forbidden", words)).await;
        let error = digests.digest(&closed, &[]).await.unwrap_err();
        assert!(error.contains("DENIED: not for you"), "{error}");
    }
}

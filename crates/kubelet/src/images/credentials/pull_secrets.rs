//! `spec.imagePullSecrets`: the pod's own Secrets (IMG-67, IMG-68, IMG-70, IMG-71, IMG-89).

use k8s_openapi::api::core::v1::{Pod, Secret};

use super::{DockerConfig, Keyring, Source};
use crate::context::NodeContext;
use crate::events::EventType;
use crate::pod_ref;

/// A Secret as it was read: its name, and its `resourceVersion` when it existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretVersion {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
}

/// A pod's Secrets.
#[derive(Debug, Default)]
pub(crate) struct PullSecrets {
    secrets: Vec<Secret>,
    /// All that the pod names, found or not.
    pub(crate) versions: Vec<SecretVersion>,
    /// `namespace/name` of those that do not exist.
    pub(crate) missing: Vec<String>,
}

/// A Secret of a docker type whose content is none (possible only where validation was bypassed).
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) secret: String,
    /// What the parser said; nothing of the content is in it.
    pub(crate) error: String,
}

/// One Secret's credentials.
#[derive(Debug)]
pub(crate) struct SecretKeyring {
    /// `namespace/name`.
    pub(crate) name: String,
    pub(crate) keyring: Keyring,
}

impl PullSecrets {
    /// Reads them; a warning names those that do not exist, and the pull goes on without them.
    pub(crate) async fn read(ctx: &NodeContext, pod: &Pod) -> Self {
        let names =
            pod_ref::spec(pod).image_pull_secrets.iter().flatten().map(|reference| reference.name.as_str());
        let namespace = pod_ref::namespace(pod);
        let mut read = Self::default();
        let mut missing: Vec<&str> = Vec::new();
        for name in names.filter(|name| !name.is_empty()) {
            if read.versions.iter().any(|known| known.name == name) {
                continue;
            }
            let secret = match ctx.objects.secret(namespace, name).await {
                Ok(secret) => secret,
                Err(error) => {
                    tracing::warn!(%error, secret = %format!("{namespace}/{name}"), "cannot read a pull secret");
                    None
                }
            };
            let version = secret.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
            read.versions.push(SecretVersion { name: name.to_owned(), version });
            match secret {
                Some(secret) => read.secrets.push(secret),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            ctx.recorder.record(
                pod_ref::object_reference(pod),
                EventType::Warning,
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    missing.join(", ")
                ),
            );
        }
        read.missing = missing.into_iter().map(|name| format!("{namespace}/{name}")).collect();
        read
    }

    /// These Secrets, wherever they are from.
    pub(super) fn of(secrets: Vec<Secret>) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// One keyring per Secret that has one; other types and empty ones are ignored.
    pub(crate) fn keyrings(&self) -> Result<Vec<SecretKeyring>, Malformed> {
        self.secrets.iter().filter_map(|secret| keyring(secret).transpose()).collect()
    }

    /// All of them in one keyring, in the pod's order.
    pub(crate) fn keyring(&self) -> Result<Keyring, Malformed> {
        let mut all = Keyring::default();
        for secret in self.keyrings()? {
            all.extend(&secret.keyring);
        }
        Ok(all)
    }
}

fn keyring(secret: &Secret) -> Result<Option<SecretKeyring>, Malformed> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (namespace, name) = (text(&secret.metadata.namespace), text(&secret.metadata.name));
    let data = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        bytes.filter(|bytes| !bytes.is_empty())
    };
    let config = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson").map(DockerConfig::from_config_json)
        }
        Some("kubernetes.io/dockercfg") => data(".dockercfg").map(DockerConfig::from_dockercfg),
        _ => None,
    };
    let Some(config) = config else { return Ok(None) };
    let full = format!("{namespace}/{name}");
    // `credHelpers` and `credsStore` of a Secret are ignored: a tenant does not choose what the node runs.
    let config = config.map_err(|error| Malformed { secret: full.clone(), error })?;
    let source = Source::Secret { uid: text(&secret.metadata.uid), namespace, name };
    let mut keyring = Keyring::default();
    keyring.add(config, &source);
    Ok(Some(SecretKeyring { name: full, keyring }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(kind: &str, key: &str, content: &str) -> Secret {
        Secret {
            type_: Some(kind.into()),
            data: Some([(key.to_owned(), ByteString(content.into()))].into()),
            ..Default::default()
        }
    }

    #[test]
    fn img_68_both_docker_types_and_nothing_else() {
        let entry = r#"{"a.io": {"username": "u", "password": "p"}}"#;
        let wrapped = format!(r#"{{"auths": {entry}}}"#);
        let secrets = PullSecrets {
            secrets: vec![
                secret("Opaque", ".dockerconfigjson", &wrapped),
                secret("kubernetes.io/dockerconfigjson", "other", &wrapped),
                secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", ""),
                secret("kubernetes.io/dockercfg", ".dockercfg", entry),
                secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &wrapped),
            ],
            ..Default::default()
        };
        assert_eq!(secrets.keyrings().unwrap().len(), 2);
        assert_eq!(secrets.keyring().unwrap().lookup("a.io/x").len(), 2);
    }

    #[test]
    fn img_89_a_malformed_secret_is_named_without_its_content() {
        let secrets = PullSecrets {
            secrets: vec![secret(
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                "{\"auths\": hunter2}",
            )],
            ..Default::default()
        };
        let malformed = secrets.keyring().unwrap_err();
        assert!(!malformed.error.contains("hunter2") && !malformed.error.is_empty(), "{}", malformed.error);
    }
}

//! DigestPinning (ours, off by default): a tag is resolved to its digest when it comes into a pod (created, changed
//! later, or with an ephemeral container), so that every start of it, on every node, is the same image. The name
//! keeps its tag for people: `app:1@sha256:…`.
//!
//! This crate knows no registries: whoever starts the API server gives a [`DigestResolver`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sampan_api::{Status, meta, scheme};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

/// A registry that does not answer must not hold requests for long.
const LIMIT: Duration = Duration::from_secs(15);

/// Asks registries what names mean.
#[async_trait]
pub trait DigestResolver: Send + Sync {
    /// The digest (`sha256:…`) of `image`, with the pod's docker-config Secrets for credentials. `None` for an
    /// image that needs no digest because no registry has it.
    ///
    /// # Errors
    /// Why it could not be found out, for the person who creates the pod; no secret may be in it.
    async fn digest(&self, image: &str, pull_secrets: &[Value]) -> Result<Option<String>, String>;
}

pub(super) struct DigestPinning {
    pub(super) resolver: Option<Arc<dyn DigestResolver>>,
}

#[async_trait]
impl Plugin for DigestPinning {
    fn name(&self) -> &'static str {
        "DigestPinning"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(attributes) {
            return Ok(());
        }
        let Some(resolver) = &self.resolver else {
            return Err(attributes.forbidden("DigestPinning has no way to ask registries in this server"));
        };
        // What is there already stays: a digest is pinned once, and a tag from before this plugin is not ours.
        let before = attributes.old.map(tags).unwrap_or_default();
        let mut images = tags(&attributes.object);
        images.retain(|image| !before.contains(image));
        if images.is_empty() {
            return Ok(());
        }
        let secrets = pull_secrets(attributes).await?;
        let mut pinned: HashMap<String, String> = HashMap::new();
        for image in images {
            if pinned.contains_key(&image) {
                continue;
            }
            let digest = match tokio::time::timeout(LIMIT, resolver.digest(&image, &secrets)).await {
                Ok(digest) => digest,
                Err(_) => Err(format!("the registry did not answer within {} s", LIMIT.as_secs())),
            };
            match digest {
                Ok(Some(digest)) => {
                    pinned.insert(image.clone(), format!("{image}@{digest}"));
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(attributes
                        .forbidden(format!("image {image:?} cannot be pinned to a digest: {error}")));
                }
            }
        }
        each_image(&mut attributes.object, |image| {
            if let Some(name) = pinned.get(image.as_str().unwrap_or_default()) {
                *image = json!(name);
            }
        });
        Ok(())
    }
}

/// Pods, new and changed, and what `kubectl debug` adds to them.
fn concerns(attributes: &Attributes<'_>) -> bool {
    let part = attributes.scope.subresource;
    attributes.is_core("pods")
        && matches!(part, "" | "ephemeralcontainers")
        && attributes.operation != Operation::Delete
}

/// Calls `visit` with each image of a pod.
fn each_image(pod: &mut Value, mut visit: impl FnMut(&mut Value)) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(image) = container.get_mut("image") {
                visit(image);
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(reference) = volume.get_mut("image").and_then(|image| image.get_mut("reference")) {
            visit(reference);
        }
    }
}

/// Images that name no digest yet; those that do are nobody's to change (IMG-54).
fn tags(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    each_image(&mut pod.clone(), |image| {
        let image = image.as_str().unwrap_or_default();
        if !image.is_empty() && !image.contains('@') {
            found.push(image.to_owned());
        }
    });
    found
}

/// The pod's Secrets that exist. ServiceAccount, which runs before, has copied those of the account.
async fn pull_secrets(attributes: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    let registry = &attributes.scope.server.registry;
    let Some(resource) = scheme::find("", "v1", "secrets") else { return Ok(Vec::new()) };
    let mut secrets = Vec::new();
    for reference in meta::list(&attributes.object, "/spec/imagePullSecrets") {
        let name = meta::str_of(reference, "name");
        if name.is_empty() {
            continue;
        }
        let found = registry.get_fresh(resource, attributes.scope.namespace, name).await?;
        secrets.extend(found.map(|secret| secret.value()));
    }
    Ok(secrets)
}

//! ServiceAccount: a pod runs as one, sees its token under the well-known path, and pulls with its secrets
//! (IMG-72, IMG-73, ENV-50).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sampan_api::{Status, meta, scheme};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::registry::create::random_suffix;
use crate::watch::Object;

const DEFAULT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little: tells such tokens apart from those that were asked for with an hour.
const EXPIRATION_SECONDS: i64 = 3607;
/// A new namespace gets its default account from a controller; a pod that comes at once waits for it.
const DEFAULT_ATTEMPTS: u32 = 40;
const DEFAULT_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods")
            || attributes.operation != Operation::Create
            || is_mirror(&attributes.object)
        {
            return Ok(());
        }
        if meta::str_at(&attributes.object, "/spec/serviceAccountName").is_empty() {
            let old_name = meta::str_at(&attributes.object, "/spec/serviceAccount");
            let name = if old_name.is_empty() { DEFAULT } else { old_name }.to_owned();
            meta::object_mut(&mut attributes.object["spec"]).insert("serviceAccountName".into(), json!(name));
        }
        let name = meta::str_at(&attributes.object, "/spec/serviceAccountName").to_owned();
        meta::object_mut(&mut attributes.object["spec"]).insert("serviceAccount".into(), json!(name));
        let account = find(attributes, &name).await?;
        let pod = &mut attributes.object;
        let automount = pod["spec"]["automountServiceAccountToken"].as_bool();
        if automount.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
            mount_token(pod);
        }
        if meta::list(pod, "/spec/imagePullSecrets").is_empty() {
            let secrets: Vec<Value> = meta::items(&account, "imagePullSecrets")
                .iter()
                .map(|secret| json!({"name": meta::str_of(secret, "name")}))
                .collect();
            if !secrets.is_empty() {
                meta::object_mut(&mut pod["spec"]).insert("imagePullSecrets".into(), json!(secrets));
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let pod = &attributes.object;
        if is_mirror(pod) {
            return mirror(attributes);
        }
        let name = meta::str_at(pod, "/spec/serviceAccountName");
        let account = find(attributes, name).await?;
        if meta::annotation(&account, ENFORCE) == Some("true") {
            limit_secrets(attributes, &account)
        } else {
            Ok(())
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    meta::annotation(pod, MIRROR).is_some()
}

/// A kubelet's picture of a static pod has nothing of the API.
fn mirror(attributes: &Attributes<'_>) -> Result<(), Status> {
    let pod = &attributes.object;
    if !meta::str_at(pod, "/spec/serviceAccountName").is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    for volume in meta::list(pod, "/spec/volumes") {
        if volume.get("secret").is_some() {
            return Err(attributes.forbidden("a mirror pod may not reference secrets"));
        }
        let sources = meta::list(volume, "/projected/sources");
        if sources.iter().any(|source| source.get("serviceAccountToken").is_some()) {
            return Err(
                attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections")
            );
        }
    }
    Ok(())
}

async fn find(attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
    let namespace = attributes.scope.namespace;
    let registry = &attributes.scope.server.registry;
    let Some(resource) = scheme::find("", "v1", "serviceaccounts") else {
        return Err(Status::internal_error("no service accounts"));
    };
    let attempts = if name == DEFAULT { DEFAULT_ATTEMPTS } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(DEFAULT_INTERVAL).await;
        }
        let found: Option<Arc<Object>> = registry.get_fresh(resource, namespace, name).await?;
        if let Some(found) = found {
            return Ok(found.value());
        }
    }
    let why =
        format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
    Err(attributes.forbidden(why))
}

fn mount_token(pod: &mut Value) {
    let existing = meta::list(pod, "/spec/volumes").iter().map(|volume| meta::str_of(volume, "name"));
    let existing = existing.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let spec = meta::object_mut(&mut pod["spec"]);
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounted = meta::items(container, "volumeMounts").iter();
            if mounted.map(|mount| meta::str_of(mount, "mountPath")).any(|path| path == MOUNT_PATH) {
                continue;
            }
            needed = true;
            push(
                meta::object_mut(container).entry("volumeMounts").or_insert(Value::Null),
                json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}),
            );
        }
    }
    if needed && existing.is_none() {
        push(spec.entry("volumes").or_insert(Value::Null), token_volume(&name));
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

/// Refuses secrets that the account does not list.
fn limit_secrets(attributes: &Attributes<'_>, account: &Value) -> Result<(), Status> {
    let pod = &attributes.object;
    let account_name = meta::name(account);
    let names = |field: &str| -> Vec<&str> {
        meta::items(account, field).iter().map(|reference| meta::str_of(reference, "name")).collect()
    };
    let mountable = names("secrets");
    for volume in meta::list(pod, "/spec/volumes") {
        let secret = meta::str_at(volume, "/secret/secretName");
        if !secret.is_empty() && !mountable.contains(&secret) {
            return Err(attributes.forbidden(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {account_name} \
                 does not reference that secret"
            )));
        }
    }
    for (list, word) in [("initContainers", "init container"), ("containers", "container")] {
        for container in meta::items(&pod["spec"], list) {
            let container_name = meta::str_of(container, "name");
            for env in meta::items(container, "env") {
                let secret = meta::str_at(env, "/valueFrom/secretKeyRef/name");
                if !secret.is_empty() && !mountable.contains(&secret) {
                    return Err(attributes.forbidden(format!(
                        "{word} {container_name} with envVar {} referencing secret.secretName=\"{secret}\" is not \
                         allowed because service account {account_name} does not reference that secret",
                        meta::str_of(env, "name")
                    )));
                }
            }
            for env in meta::items(container, "envFrom") {
                let secret = meta::str_at(env, "/secretRef/name");
                if !secret.is_empty() && !mountable.contains(&secret) {
                    return Err(attributes.forbidden(format!(
                        "{word} {container_name} with envFrom referencing secret.secretName=\"{secret}\" is not \
                         allowed because service account {account_name} does not reference that secret"
                    )));
                }
            }
        }
    }
    let pullable = names("imagePullSecrets");
    for (index, reference) in meta::list(pod, "/spec/imagePullSecrets").iter().enumerate() {
        let secret = meta::str_of(reference, "name");
        if !pullable.contains(&secret) {
            return Err(attributes.forbidden(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {account_name} \
                 does not reference that imagePullSecret"
            )));
        }
    }
    Ok(())
}

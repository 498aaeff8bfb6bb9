//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and three never go.

use async_trait::async_trait;
use sampan_api::{Status, meta, scheme};

use super::{Attributes, Operation, Plugin};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if attributes.is("namespaces") {
            if attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name.as_str()) {
                return Err(attributes.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        let namespace = attributes.scope.namespace;
        if namespace.is_empty()
            || !attributes.resource().namespaced
            || attributes.operation != Operation::Create
        {
            return Ok(());
        }
        // Asking who may access what says nothing of a namespace's state.
        if attributes.resource().group == "authorization.k8s.io" {
            return Ok(());
        }
        let not_found = || Status::not_found("", "namespaces", namespace);
        let Some(resource) = scheme::find("", "v1", "namespaces") else { return Err(not_found()) };
        let registry = &attributes.scope.server.registry;
        let found = registry.get_fresh(resource, "", namespace).await?.ok_or_else(not_found)?;
        let found = found.value();
        if meta::str_at(&found, "/status/phase") == "Terminating" || meta::is_deleting(&found) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(attributes
                .forbidden(why)
                .with_cause("NamespaceTerminating", &format!("namespace {namespace} is being terminated")));
        }
        Ok(())
    }
}

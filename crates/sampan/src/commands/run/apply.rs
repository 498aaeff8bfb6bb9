//! Creating what the manifests say, and deleting it again.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream};
use kube::{
    Client,
    api::{DeleteParams, PostParams},
    runtime::wait,
};

use crate::{manifests::Manifest, output::Printer};

/// How long a namespace's ServiceAccount may take to appear.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(10);
/// Beyond a pod's grace period, for its deletion to be through.
const DELETION_PATIENCE: Duration = Duration::from_secs(60);

/// Creates all objects in their order. What was made goes to `created` at once, so that the caller can take
/// it back when a later one fails.
pub(super) async fn create_all(
    client: &Client,
    manifests: &[Manifest],
    created: &mut Vec<Manifest>,
    printer: &Printer,
) -> Result<()> {
    for manifest in manifests {
        let label = manifest.label();
        let object = create(client, manifest).await.with_context(|| format!("creating {label}"))?;
        let made = Manifest { resource: manifest.resource, object };
        printer.status(format!("{} created", made.label()));
        if !acted_on(manifest) {
            printer.warning(format!(
                "{label} is stored, but no controller of this version acts on a {}",
                manifest.resource.kind
            ));
        }
        created.push(made);
    }
    Ok(())
}

async fn create(client: &Client, manifest: &Manifest) -> Result<kube::api::DynamicObject> {
    let api = manifest.api(client);
    let deadline = tokio::time::Instant::now() + ACCOUNT_PATIENCE;
    loop {
        match api.create(&PostParams::default(), &manifest.object).await {
            Ok(object) => return Ok(object),
            Err(kube::Error::Api(status)) if status.is_already_exists() => bail!(
                "it exists already; delete it first (kubectl delete {}) or give it another name",
                manifest.label()
            ),
            // A namespace is a moment old: its ServiceAccount is on the way.
            Err(kube::Error::Api(status))
                if status.message.contains("error looking up service account")
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(kube::Error::Api(status)) => bail!("{}", status.message),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether something happens because the object exists.
fn acted_on(manifest: &Manifest) -> bool {
    match manifest.resource.group {
        "apps" | "batch" | "autoscaling" => false,
        _ => manifest.resource.kind != "ReplicationController",
    }
}

/// Deletes in reverse order, gracefully, and waits until the pods are gone. All are tried.
pub(super) async fn delete_all(client: &Client, created: &[Manifest], printer: &Printer) -> Result<()> {
    let results = stream::iter(created.iter().rev()).map(|manifest| delete(client, manifest, printer));
    let results: Vec<Result<()>> = results.buffer_unordered(16).collect().await;
    results.into_iter().collect()
}

async fn delete(client: &Client, manifest: &Manifest, printer: &Printer) -> Result<()> {
    let label = manifest.label();
    let api = manifest.api(client);
    let name = manifest.object.metadata.name.clone().unwrap_or_default();
    let uid = manifest.object.metadata.uid.clone().unwrap_or_default();
    match api.delete(&name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("deleting {label}")),
    }
    if manifest.resource.kind == "Pod" {
        let grace = manifest.object.data.pointer("/spec/terminationGracePeriodSeconds");
        let grace = Duration::from_secs(grace.and_then(serde_json::Value::as_u64).unwrap_or(30));
        let gone = wait::await_condition(api, &name, wait::conditions::is_deleted(&uid));
        match tokio::time::timeout(grace + DELETION_PATIENCE, gone).await {
            Ok(gone) => drop(gone.with_context(|| format!("waiting until {label} is gone"))?),
            Err(_) => bail!("{label} is still there {DELETION_PATIENCE:?} after its grace period"),
        }
    }
    printer.status(format!("{label} deleted"));
    Ok(())
}

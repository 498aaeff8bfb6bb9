//! Deletes what is in a namespace that is being deleted, then lets it go.

mod content;

use futures::{Stream, StreamExt, stream};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use sampan_api::meta::{list, str_at};
use serde_json::json;
use tokio::time::Duration;

use self::content::Remaining;
use crate::feed::{Change, Changes, Feeds};
use crate::kinds;
use crate::reconcile::{self, Next};

/// The finalizer in `spec.finalizers` that this controller removes.
const FINALIZER: &str = "kubernetes";
/// When to look again at what has finalizers or is still stopping; pods that go away are noticed at once.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The names of the namespaces that are not being deleted, as they come and change.
pub(crate) fn active(changes: Changes) -> impl Stream<Item = String> {
    changes.filter_map(|change| async move {
        match change {
            Change::Set(object) if !is_terminating(&object) => object.metadata.name.clone(),
            _ => None,
        }
    })
}

/// Whether a namespace is there and stays.
pub(crate) async fn is_active(client: &Client, name: &str) -> Result<bool, kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "namespaces"), "");
    Ok(api.get_opt(name).await?.is_some_and(|namespace| !is_terminating(&namespace)))
}

fn is_terminating(namespace: &DynamicObject) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        || str_at(&namespace.data, "/status/phase") == "Terminating"
}

/// Runs the controller.
pub(crate) fn run(client: Client, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let deleted = feeds.subscribe("", "namespaces").filter_map(|change| async move {
        match change {
            Change::Set(object) if object.metadata.deletion_timestamp.is_some() => {
                object.metadata.name.clone()
            }
            _ => None,
        }
    });
    let emptier = crate::service_account::gone(feeds.subscribe("", "pods"));
    reconcile::run("namespace", stream::select(deleted, emptier), move |name: String| {
        let client = client.clone();
        async move { empty(&client, &name).await }
    })
}

/// One round: delete all, report what is left, or finish.
async fn empty(client: &Client, name: &str) -> Result<Next, kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "namespaces"), "");
    let Some(mut namespace) = api.get_opt(name).await? else { return Ok(Next::Wait) };
    let finalizers = list(&namespace.data, "/spec/finalizers").to_vec();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.contains(&FINALIZER.into()) {
        return Ok(Next::Wait);
    }
    let remaining = content::delete(client, name).await;
    set_conditions(&api, &namespace, &remaining).await?;
    if !remaining.is_empty() {
        return Ok(Next::After(LOOK_AGAIN));
    }
    let rest: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
    namespace.data["spec"]["finalizers"] = rest.into();
    // The conditions that were just written made a newer version; which one, does not matter here.
    namespace.metadata.resource_version = None;
    let finalized = api.replace_subresource("finalize", name, &PostParams::default(), &namespace).await;
    kinds::or_gone(finalized)?;
    Ok(Next::Wait)
}

/// Writes the five conditions in which upstream tells how far the deletion is; only those that changed.
async fn set_conditions(
    api: &kube::Api<DynamicObject>,
    namespace: &DynamicObject,
    remaining: &Remaining,
) -> Result<(), kube::Error> {
    let ok = |name, reason, message: &str| (name, "False", reason, message.to_owned());
    let told = [
        ok(
            "NamespaceDeletionDiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        ok(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        match remaining.failures() {
            None => ok(
                "NamespaceDeletionContentFailure",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            Some(message) => ("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", message),
        },
        match remaining.instances() {
            None => ok("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
            Some(message) => ("NamespaceContentRemaining", "True", "SomeResourcesRemain", message),
        },
        match remaining.finalizers() {
            None => ok(
                "NamespaceFinalizersRemaining",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            Some(message) => ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", message),
        },
    ];
    let now = sampan_api::meta::format_time(jiff::Timestamp::now());
    let mut conditions = Vec::new();
    for (condition, status, reason, message) in told {
        let before =
            list(&namespace.data, "/status/conditions").iter().find(|found| found["type"] == condition);
        let same = |field: &str, value: &str| before.is_some_and(|before| before[field] == *value);
        if same("status", status) && same("reason", reason) && same("message", &message) {
            continue;
        }
        let since = if same("status", status) {
            before.map(|before| before["lastTransitionTime"].clone())
        } else {
            None
        };
        conditions.push(json!({
            "type": condition, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| now.clone().into()),
        }));
    }
    if conditions.is_empty() {
        return Ok(());
    }
    let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    kinds::or_gone(api.patch_status(name, &PatchParams::default(), &patch).await)?;
    Ok(())
}

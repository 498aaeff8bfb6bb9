//! Back-off that ends when its cause does: a Secret or the ServiceAccount of the pod changes, the node's
//! credential file changes, or the image appears on the node. The next attempt is then immediate.
//!
//! One small task per waiting image, for as long as it waits; watches are by name, which is all that a node
//! may ask for.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use sampan_cri::v1;
use tokio::task::AbortHandle;

use super::credentials::{SecretVersion, Versions};
use crate::context::NodeContext;
use crate::pod_ref;

/// How often files and the runtime are looked at: neither can tell by itself.
const LOOK: Duration = Duration::from_secs(2);

/// What may end a wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Awaited {
    /// The back-off that then counts no longer.
    pub(crate) key: String,
    /// The image, when its appearance on the node helps.
    pub(crate) image: Option<v1::ImageSpec>,
    /// The local copy that was not good enough.
    pub(crate) present: Option<String>,
    /// What the last attempt was made with.
    pub(crate) read: Versions,
}

/// A wait for one of the causes; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct CauseWatch {
    awaited: Awaited,
    task: AbortHandle,
}

impl Drop for CauseWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CauseWatch {
    /// Watches; `over` is called once, when something happened.
    pub(crate) fn start(
        ctx: Arc<NodeContext>,
        pod: Arc<Pod>,
        awaited: Awaited,
        over: impl FnOnce() + Send + 'static,
    ) -> Self {
        let causes = awaited.clone();
        let task = tokio::spawn(async move {
            let cause = any(&ctx, &pod, &causes).await;
            tracing::info!(pod = %pod_ref::full_name(&pod), cause, "the wait for an image is over");
            ctx.images.excuse(&causes.key);
            over();
        });
        Self { awaited, task: task.abort_handle() }
    }

    /// Whether it waits for exactly this.
    pub(crate) fn is_for(&self, awaited: &Awaited) -> bool {
        self.awaited == *awaited && !self.task.is_finished()
    }
}

/// The first cause that happens, in words.
async fn any(ctx: &NodeContext, pod: &Pod, awaited: &Awaited) -> String {
    let namespace = pod_ref::namespace(pod);
    let mut secrets: FuturesUnordered<_> =
        awaited.read.secrets.iter().map(|secret| secret_changes(ctx, namespace, secret)).collect();
    let account = pod_ref::spec(pod).service_account_name.as_deref().unwrap_or_default();
    tokio::select! {
        Some(name) = secrets.next() => format!("Secret {namespace}/{name} changed"),
        () = account_changes(ctx, namespace, account) => format!("ServiceAccount {namespace}/{account} changed"),
        cause = node_changes(ctx, awaited) => cause,
    }
}

/// The node's file, and the image itself.
async fn node_changes(ctx: &NodeContext, awaited: &Awaited) -> String {
    let now = || ctx.images.credentials.file.signature();
    let file = awaited.read.file.clone().unwrap_or_else(now);
    loop {
        tokio::time::sleep(LOOK).await;
        if now() != file {
            return "the node's credential file changed".to_owned();
        }
        if let Some(image) = &awaited.image
            && let Ok(Some(found)) = ctx.config.cri.image_status(image.clone()).await
            && awaited.present.as_ref() != Some(&found.id)
        {
            return format!("image {} is here", image.image);
        }
    }
}

async fn secret_changes(ctx: &NodeContext, namespace: &str, known: &SecretVersion) -> String {
    let secrets: Api<Secret> = Api::namespaced(ctx.config.client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", known.name));
    let mut events = watcher(secrets, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let secret = match event {
            Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => secret,
            Err(error) if is_refused(&error) => break,
            _ => continue,
        };
        let version = secret.metadata.resource_version;
        if secret.metadata.name.as_deref() == Some(known.name.as_str()) && version != known.version {
            return known.name.clone();
        }
    }
    std::future::pending().await
}

/// Only changes after the first look count: no attempt reads an account before that, but for plugins.
async fn account_changes(ctx: &NodeContext, namespace: &str, name: &str) {
    if name.is_empty() {
        return std::future::pending().await;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.config.client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(accounts, config).default_backoff().boxed();
    let mut first = None;
    while let Some(event) = events.next().await {
        let account = match event {
            Ok(watcher::Event::Apply(account) | watcher::Event::InitApply(account)) => account,
            Err(error) if is_refused(&error) => break,
            _ => continue,
        };
        if account.metadata.name.as_deref() != Some(name) {
            continue;
        }
        let version = account.metadata.resource_version;
        match &first {
            None => first = Some(version),
            Some(first) if *first != version => return,
            Some(_) => {}
        }
    }
    std::future::pending().await
}

/// An API server that does not let nodes watch this.
fn is_refused(error: &watcher::Error) -> bool {
    use watcher::Error;
    let refused = |code: u16| matches!(code, 401 | 403);
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status)) => refused(status.code),
        Error::WatchError(status) => refused(status.code),
        _ => false,
    }
}

//! Starting pods and watching them come up, as a client sees it.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Creates `count` pods at once; the time until a watch has seen all of them Running. Then deletes them.
pub(crate) async fn start_and_delete(client: &Client, count: usize, prefix: &str) -> Result<Duration> {
    let started = Instant::now();
    let names = start(client, count, prefix).await?;
    let took = started.elapsed();
    delete(client, &names).await?;
    Ok(took)
}

/// Creates `count` pods and waits until all are Running.
pub(crate) async fn start(client: &Client, count: usize, prefix: &str) -> Result<Vec<String>> {
    let pods = (0..count).map(|index| pod(prefix, index, json!({}))).collect::<Result<Vec<_>>>()?;
    start_until(client, prefix, &pods, is_running).await
}

/// Creates pods that have this label and waits until all are as wanted; their names.
pub(crate) async fn start_until(
    client: &Client,
    prefix: &str,
    pods: &[Pod],
    wanted: fn(&Pod) -> bool,
) -> Result<Vec<String>> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let names: Vec<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    let params = WatchParams::default().labels(&format!("bench={prefix}"));
    let mut watch = api.watch(&params, "0").await?.boxed();
    let post = PostParams::default();
    future::try_join_all(pods.iter().map(|pod| api.create(&post, pod))).await.context("creating pods")?;
    let mut waiting: HashSet<&str> = names.iter().map(String::as_str).collect();
    let running = async {
        while !waiting.is_empty() {
            match watch.try_next().await?.context("the watch ended")? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) if wanted(&pod) => {
                    waiting.remove(pod.metadata.name.as_deref().unwrap_or(""));
                }
                WatchEvent::Error(status) => bail!("watch: {}", status.message),
                _ => {}
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, running).await.context("pods do not start")??;
    Ok(names)
}

/// Deletes pods gracefully and waits until they are gone.
pub(crate) async fn delete(client: &Client, names: &[String]) -> Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let params = DeleteParams::default();
    future::try_join_all(names.iter().map(|name| api.delete(name, &params)))
        .await
        .context("deleting pods")?;
    let started = Instant::now();
    for name in names {
        while api.get_metadata_opt(name).await?.is_some() {
            if started.elapsed() > PATIENCE {
                bail!("pod {name} does not go away");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

/// A pod that sleeps until it is told to end; `more` is added to its container.
pub(crate) fn pod(label: &str, index: usize, more: Value) -> Result<Pod> {
    let mut container = json!({
        "name": "c", "image": "sampan.local/toolbox", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
    });
    if let (Some(container), Value::Object(more)) = (container.as_object_mut(), more) {
        container.extend(more);
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("{label}-{index}"), "labels": {"bench": label}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
    }))?)
}

/// The pod's phase is Running.
pub(crate) fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// The pod's condition Ready is True.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

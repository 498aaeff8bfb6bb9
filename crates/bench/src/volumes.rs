//! From a change of a ConfigMap to the file that a container of a running pod reads.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{node::Node, pods, report::Report};

/// Updates per round.
const UPDATES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// One ConfigMap in one pod, and the same one in many.
pub(crate) async fn measure(binary: &Path, rounds: usize, report: &mut Report) -> Result<()> {
    let mut node = Node::new(binary)?;
    node.start().await?;
    let client = node.client().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = json!({"metadata": {"name": "map"}, "data": {"key": "first"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    let mut files = vec![mount(&node, &client, "reader-0").await?];
    report.figure("ConfigMap update to file visible", "<= 2 s", updates(&maps, &files, "one", rounds).await?);
    for index in 1..10 {
        files.push(mount(&node, &client, &format!("reader-{index}")).await?);
    }
    report.figure(
        "the same in ten pods, the last of them",
        "<= 2 s",
        updates(&maps, &files, "ten", rounds).await?,
    );
    let names: Vec<String> = (0..files.len()).map(|index| format!("reader-{index}")).collect();
    pods::delete(&client, &names).await?;
    node.stop().await
}

/// Changes the key and waits until all files have it; each change from before its request.
async fn updates(
    maps: &Api<ConfigMap>,
    files: &[PathBuf],
    word: &str,
    rounds: usize,
) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for number in 0..rounds * UPDATES {
        let value = format!("{word}-{number}");
        let started = Instant::now();
        let patch = Patch::Merge(json!({"data": {"key": value}}));
        maps.patch("map", &PatchParams::default(), &patch).await?;
        for file in files {
            while fs::read_to_string(file).unwrap_or_default() != value {
                if started.elapsed() > PATIENCE {
                    bail!("{} does not change", file.display());
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
        took.push(started.elapsed());
    }
    Ok(took)
}

/// A running pod with the ConfigMap as a volume; where its file is on the host, the same that the container sees.
async fn mount(node: &Node, client: &Client, name: &str) -> Result<PathBuf> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "volumes": [{"name": "map", "configMap": {"name": "map"}}],
            "containers": [{"name": "c", "image": "sampan.local/toolbox", "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"], "volumeMounts": [{"name": "map", "mountPath": "/map"}]}]},
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let waiting =
        kube::runtime::wait::await_condition(api, name, kube::runtime::wait::conditions::is_pod_running());
    let pod = tokio::time::timeout(PATIENCE, waiting).await.context("the pod does not run")??;
    let uid = pod.and_then(|pod| pod.metadata.uid).context("the pod has no uid")?;
    let pods = node.run_dir().join("data/kubelet/pods");
    Ok(pods.join(uid).join("volumes/kubernetes.io~configmap/map/key"))
}

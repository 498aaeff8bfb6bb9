//! The pods that the runtime has, as far as their labels tell: for those whose objects nobody has any more.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sampan_cri::v1;
use tonic::Status;

use crate::context::NodeContext;
use crate::labels;
use crate::pod_ref;
use crate::static_pods;

/// All sandboxes and containers of the runtime that are a kubelet's.
pub(crate) struct RuntimePods {
    sandboxes: Vec<v1::PodSandbox>,
    containers: Vec<v1::Container>,
}

impl RuntimePods {
    /// Asks for them.
    ///
    /// # Errors
    /// The runtime's answer.
    pub(crate) async fn read(ctx: &NodeContext) -> Result<Self, Status> {
        let cri = &ctx.config.cri;
        let (sandboxes, containers) = tokio::try_join!(
            cri.list_pod_sandboxes(Default::default()),
            cri.list_containers(Default::default())
        )?;
        Ok(Self { sandboxes, containers })
    }

    /// By UID; each knows the containers that it has, and the grace period they remember.
    pub(crate) fn all(&self) -> BTreeMap<String, Pod> {
        let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
        let labels =
            self.sandboxes.iter().map(|s| &s.labels).chain(self.containers.iter().map(|c| &c.labels));
        for labels in labels {
            if let Some(pod) = pod_from_labels(labels) {
                pods.entry(pod_ref::uid(&pod).to_owned()).or_insert(pod);
            }
        }
        for container in &self.containers {
            let uid = container.labels.get(labels::POD_UID).map(String::as_str).unwrap_or_default();
            if let Some(pod) = pods.get_mut(uid) {
                remember_container(pod, container);
            }
        }
        pods
    }

    /// Those of manifests that have a sandbox, or a process.
    pub(crate) fn running_static(&self) -> Vec<Pod> {
        let of_file = |sandbox: &&v1::PodSandbox| {
            sandbox.annotations.get(static_pods::SOURCE).is_some_and(|source| source != "api")
        };
        let runs = |uid: &str| {
            let ready = v1::PodSandboxState::SandboxReady as i32;
            let running = v1::ContainerState::ContainerRunning as i32;
            let is = |labels: &HashMap<String, String>| {
                labels.get(labels::POD_UID).is_some_and(|labelled| labelled == uid)
            };
            self.sandboxes.iter().any(|sandbox| is(&sandbox.labels) && sandbox.state == ready)
                || self.containers.iter().any(|container| is(&container.labels) && container.state == running)
        };
        let mut all = self.all();
        let uids = self.sandboxes.iter().filter(of_file).filter_map(|s| s.labels.get(labels::POD_UID));
        uids.filter(|uid| runs(uid)).filter_map(|uid| all.remove(uid)).collect()
    }
}

fn pod_from_labels(labels: &HashMap<String, String>) -> Option<Pod> {
    let of = |key: &str| labels.get(key).cloned();
    Some(Pod {
        metadata: ObjectMeta {
            name: of(labels::POD_NAME),
            namespace: of(labels::POD_NAMESPACE),
            uid: Some(of(labels::POD_UID)?),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    })
}

fn remember_container(pod: &mut Pod, container: &v1::Container) {
    let Some(spec) = pod.spec.as_mut() else { return };
    let number = |key: &str| container.annotations.get(key).and_then(|value| value.parse::<i64>().ok());
    let grace = number(labels::DELETION_GRACE_PERIOD).or_else(|| number(labels::TERMINATION_GRACE_PERIOD));
    spec.termination_grace_period_seconds = grace.or(spec.termination_grace_period_seconds);
    if let Some(name) = container.labels.get(labels::CONTAINER_NAME)
        && !spec.containers.iter().any(|known| known.name == *name)
    {
        let ports = container.annotations.get(labels::PORTS).and_then(|json| serde_json::from_str(json).ok());
        spec.containers.push(Container { name: name.clone(), ports, ..Container::default() });
    }
}

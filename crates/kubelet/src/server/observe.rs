//! What is going on: `/pods`, `/runningpods`, `/configz`, `/stats/summary`, `/metrics` and the pages below it.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use sampan_cri::v1;
use serde_json::{Value, json};

use super::Server;
use super::body::{Body, json as json_response, respond};
use crate::labels;
use crate::metrics::CONTENT_TYPE;
use crate::stats;

impl Server {
    /// The pods of this node with their newest status.
    pub(super) fn pods(&self) -> Response<Body> {
        let items: Vec<Value> = self
            .workers
            .pods()
            .into_iter()
            .map(|pod| {
                let mut pod = (*pod).clone();
                if let Some(status) = self.ctx.status.current(crate::pod_ref::uid(&pod)) {
                    pod.status = Some(status);
                }
                serde_json::to_value(pod).unwrap_or_default()
            })
            .collect();
        json_response(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    /// What runs according to the runtime.
    pub(super) async fn running_pods(&self) -> Response<Body> {
        let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
        let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
        let containers = self.ctx.config.cri.list_containers(filter).await.unwrap_or_default();
        let mut pods: BTreeMap<String, Value> = BTreeMap::new();
        for container in containers {
            let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
            let pod = pods.entry(label(labels::POD_UID)).or_insert_with(|| {
                json!({"metadata": {"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE),
                    "uid": label(labels::POD_UID)}, "spec": {"containers": []}, "status": {}})
            });
            if let Some(list) = pod["spec"]["containers"].as_array_mut() {
                let image = container.image.map(|image| image.image).unwrap_or_default();
                list.push(json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}}));
            }
        }
        let items: Vec<Value> = pods.into_values().collect();
        json_response(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    /// The settings that differ from node to node.
    pub(super) fn configz(&self) -> Response<Body> {
        let config = &self.ctx.config;
        json_response(&json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "maxPods": config.max_pods,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "resolvConf": config.resolv_conf,
            "cgroupRoot": config.cgroup_root,
            "cgroupDriver": if self.ctx.systemd_cgroups { "systemd" } else { "cgroupfs" },
            "maxParallelImagePulls": config.images.max_parallel_image_pulls,
            "serializeImagePulls": config.images.serialize_image_pulls,
            "containerLogMaxSize": config.container_log_max_size.to_string(),
            "containerLogMaxFiles": config.container_log_max_files,
            "syncFrequency": crate::go_duration::format(config.sync_frequency),
        }}))
    }

    /// `/stats/summary`.
    pub(super) async fn stats_summary(&self, query: &str) -> Response<Body> {
        let brief = query.split('&').any(|pair| pair == "only_cpu_and_memory=true");
        match self.snapshot().await {
            Ok(snapshot) => {
                json_response(&stats::summary(&self.ctx.config.node_name, self.ctx.started, &snapshot, brief))
            }
            Err(refusal) => refusal,
        }
    }

    /// `/metrics/resource`.
    pub(super) async fn resource_metrics(&self) -> Response<Body> {
        match self.snapshot().await {
            Ok(snapshot) => respond(StatusCode::OK, CONTENT_TYPE, stats::resource(&snapshot)),
            Err(refusal) => refusal,
        }
    }

    /// `/metrics/cadvisor`.
    pub(super) async fn cadvisor_metrics(&self) -> Response<Body> {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.snapshot().await {
            Ok(snapshot) => respond(StatusCode::OK, CONTENT_TYPE, stats::cadvisor(&snapshot, cpus)),
            Err(refusal) => refusal,
        }
    }

    async fn snapshot(&self) -> Result<stats::Snapshot, Response<Body>> {
        stats::collect(&self.ctx, self.workers.pods()).await.map_err(|status| {
            respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", crate::cri::go_error(&status))
        })
    }

    /// `/metrics`: what was counted, and what is looked up now.
    pub(super) async fn metrics(&self) -> Response<Body> {
        let metrics = &self.ctx.metrics;
        let cri = &self.ctx.config.cri;
        let (containers, sandboxes) =
            tokio::join!(cri.list_containers(Default::default()), cri.list_pod_sandboxes(Default::default()));
        if let (Ok(containers), Ok(sandboxes)) = (containers, sandboxes) {
            for (name, state) in [
                ("created", v1::ContainerState::ContainerCreated),
                ("running", v1::ContainerState::ContainerRunning),
                ("exited", v1::ContainerState::ContainerExited),
            ] {
                let count = containers.iter().filter(|container| container.state == state as i32).count();
                let labels = [("container_state", name.to_owned())];
                metrics
                    .containers
                    .by_state
                    .get_or_create(&labels)
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let ready = v1::PodSandboxState::SandboxReady as i32;
            let running = sandboxes.iter().filter(|sandbox| sandbox.state == ready).count();
            let pods = self.workers.pods();
            let ours = pods.iter().filter(|pod| crate::static_pods::is_static(pod)).count();
            for (of, count) in [("true", ours), ("false", pods.len() - ours)] {
                let labels = [("static", of.to_owned())];
                metrics.pods.desired.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            metrics.pods.mirror.set(i64::try_from(self.ctx.mirrors.count()).unwrap_or(i64::MAX));
            metrics.pods.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        }
        respond(StatusCode::OK, CONTENT_TYPE, metrics.text())
    }

    /// `/metrics/probes`.
    pub(super) fn probe_metrics(&self) -> Response<Body> {
        respond(StatusCode::OK, CONTENT_TYPE, self.ctx.metrics.probes_text())
    }
}

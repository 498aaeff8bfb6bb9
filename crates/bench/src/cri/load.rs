//! The same requests for every engine.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use sampan_cri::client::Client;
use sampan_cri::v1;

/// Requests to one engine.
#[derive(Clone)]
pub(crate) struct Load {
    pub(super) client: Client,
    pub(super) handler: String,
    pub(super) image: String,
    /// Names its pods and cgroups.
    pub(super) mark: String,
}

/// What cycles took.
pub(crate) struct Cycles {
    /// From RunPodSandbox to StartContainer's answer, each.
    pub(crate) running: Vec<Duration>,
    /// From StopContainer to RemovePodSandbox's answer, each.
    pub(crate) removed: Vec<Duration>,
    /// All of them together.
    pub(crate) took: Duration,
}

/// A pod and its container.
pub(crate) type Pod = (String, String);

impl Load {
    /// `count` pods come and go, `parallel` at a time.
    pub(crate) async fn cycles(&self, parallel: usize, count: usize) -> Result<Cycles> {
        let began = Instant::now();
        let cycles: Vec<_> = stream::iter(0..count)
            .map(|_| async {
                let start = Instant::now();
                let pod = self.start().await?;
                let running = start.elapsed();
                let stop = Instant::now();
                self.end(&pod).await?;
                anyhow::Ok((running, stop.elapsed()))
            })
            .buffer_unordered(parallel)
            .try_collect()
            .await?;
        let (running, removed) = cycles.into_iter().unzip();
        Ok(Cycles { running, removed, took: began.elapsed() })
    }

    /// Pods that stay and sleep.
    pub(crate) async fn idle(&self, count: usize) -> Result<Vec<Pod>> {
        stream::iter(0..count).map(|_| self.start()).buffer_unordered(10).try_collect().await
    }

    pub(crate) async fn remove(&self, pods: &[Pod]) -> Result<()> {
        stream::iter(pods).map(|pod| self.end(pod)).buffer_unordered(10).try_collect().await
    }

    /// Latencies of commands in a container, one after the other.
    pub(crate) async fn execs(&self, container: &str, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            let request = v1::ExecSyncRequest {
                container_id: container.to_owned(),
                cmd: vec!["true".to_owned()],
                timeout: 20,
            };
            let answer = self.client.runtime.clone().exec_sync(request).await?.into_inner();
            anyhow::ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
            times.push(start.elapsed());
        }
        Ok(times)
    }

    async fn start(&self) -> Result<Pod> {
        let uid = format!("{:016x}", rand::random::<u64>());
        let namespaces =
            v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() };
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: self.mark.clone(),
                uid: uid.clone(),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            hostname: "bench".to_owned(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/{uid}", self.mark),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut runtime = self.client.runtime.clone();
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.handler.clone() };
        let sandbox = runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: vec!["sleep".to_owned(), "1000000".to_owned()],
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let id = runtime.create_container(request).await?.into_inner().container_id;
        runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await?;
        Ok((sandbox, id))
    }

    async fn end(&self, (sandbox, container): &Pod) -> Result<()> {
        let mut runtime = self.client.runtime.clone();
        let request = v1::StopContainerRequest { container_id: container.clone(), timeout: 0 };
        runtime.stop_container(request).await?;
        runtime.remove_container(v1::RemoveContainerRequest { container_id: container.clone() }).await?;
        runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await?;
        runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await?;
        Ok(())
    }
}

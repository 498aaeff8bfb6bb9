//! The runtime with a watch on it: every call is counted and timed under upstream's name for it.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::stream::BoxStream;
use sampan_cri::{progress, v1};
use tonic::Status;

use super::ContainerRuntime;
use crate::metrics::Operations;

/// See the module.
pub(crate) struct Measured {
    runtime: Arc<dyn ContainerRuntime>,
    operations: Operations,
}

impl Measured {
    pub(crate) fn new(runtime: Arc<dyn ContainerRuntime>, operations: Operations) -> Self {
        Self { runtime, operations }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let result = call.await;
        self.operations.ended(operation, began.elapsed(), result.is_err());
        result
    }
}

#[async_trait]
impl ContainerRuntime for Measured {
    async fn version(&self) -> Result<v1::VersionResponse, Status> {
        self.measured("version", self.runtime.version()).await
    }

    async fn status(&self) -> Result<v1::StatusResponse, Status> {
        self.measured("status", self.runtime.status()).await
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, Status> {
        self.measured("runtime_config", self.runtime.runtime_config()).await
    }

    async fn update_pod_cidr(&self, pod_cidr: String) -> Result<(), Status> {
        self.measured("update_runtime_config", self.runtime.update_pod_cidr(pod_cidr)).await
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: String) -> Result<String, Status> {
        self.measured("run_podsandbox", self.runtime.run_pod_sandbox(config, handler)).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        self.measured("stop_podsandbox", self.runtime.stop_pod_sandbox(id)).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        self.measured("remove_podsandbox", self.runtime.remove_pod_sandbox(id)).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Status> {
        self.measured("podsandbox_status", self.runtime.pod_sandbox_status(id)).await
    }

    async fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Result<Vec<v1::PodSandbox>, Status> {
        self.measured("list_podsandbox", self.runtime.list_pod_sandboxes(filter)).await
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        self.measured("create_container", self.runtime.create_container(sandbox, config, sandbox_config))
            .await
    }

    async fn start_container(&self, id: &str) -> Result<(), Status> {
        self.measured("start_container", self.runtime.start_container(id)).await
    }

    async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<(), Status> {
        self.measured("stop_container", self.runtime.stop_container(id, timeout_seconds)).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), Status> {
        self.measured("remove_container", self.runtime.remove_container(id)).await
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Status> {
        self.measured("container_status", self.runtime.container_status(id)).await
    }

    async fn list_containers(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>, Status> {
        self.measured("list_containers", self.runtime.list_containers(filter)).await
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout_seconds: i64,
    ) -> Result<v1::ExecSyncResponse, Status> {
        self.measured("exec_sync", self.runtime.exec_sync(id, command, timeout_seconds)).await
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String, Status> {
        self.measured("exec", self.runtime.exec(request)).await
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String, Status> {
        self.measured("attach", self.runtime.attach(request)).await
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, Status> {
        self.measured("port_forward", self.runtime.port_forward(request)).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), Status> {
        self.measured("reopen_container_log", self.runtime.reopen_container_log(id)).await
    }

    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse, Status>>, Status> {
        self.measured("get_container_events", self.runtime.container_events()).await
    }

    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Status> {
        self.measured("list_container_stats", self.runtime.list_container_stats()).await
    }

    async fn list_pod_sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Status> {
        self.measured("list_podsandbox_stats", self.runtime.list_pod_sandbox_stats()).await
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), Status> {
        self.measured("update_container", self.runtime.update_container_resources(id, resources)).await
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>, Status> {
        self.measured("list_images", self.runtime.list_images()).await
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Status> {
        self.measured("image_status", self.runtime.image_status(image)).await
    }

    async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        self.measured("pull_image", self.runtime.pull_image(image, auth, sandbox)).await
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Status> {
        self.measured("remove_image", self.runtime.remove_image(image)).await
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Status> {
        self.measured("image_fs_info", self.runtime.image_fs_info()).await
    }

    async fn watch_pull(
        &self,
        image: &str,
    ) -> Result<BoxStream<'static, Result<progress::WatchResponse, Status>>, Status> {
        self.measured("watch_pull", self.runtime.watch_pull(image)).await
    }
}

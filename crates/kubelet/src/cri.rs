//! The container runtime as the kubelet sees it: the CRI's calls behind one object-safe trait, so that the
//! pod logic runs against a fake in tests and against any CRI socket in production.

mod measured;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use sampan_cri::{mirrors, progress, v1};
use tonic::{Code, Response, Status};

pub(crate) use measured::Measured;

/// A CRI runtime and image service; [`CriRuntime`] is that of a socket.
#[async_trait]
#[allow(missing_docs, reason = "the methods are the CRI's, described in its api.proto")]
pub trait ContainerRuntime: Send + Sync + 'static {
    async fn version(&self) -> Result<v1::VersionResponse, Status>;
    async fn status(&self) -> Result<v1::StatusResponse, Status>;
    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, Status>;
    async fn update_pod_cidr(&self, pod_cidr: String) -> Result<(), Status>;
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: String) -> Result<String, Status>;
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Status>;
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Status>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Status>;
    async fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Result<Vec<v1::PodSandbox>, Status>;
    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Status>;
    async fn start_container(&self, id: &str) -> Result<(), Status>;
    async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<(), Status>;
    async fn remove_container(&self, id: &str) -> Result<(), Status>;
    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Status>;
    async fn list_containers(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>, Status>;
    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout_seconds: i64,
    ) -> Result<v1::ExecSyncResponse, Status>;
    async fn exec(&self, request: v1::ExecRequest) -> Result<String, Status>;
    async fn attach(&self, request: v1::AttachRequest) -> Result<String, Status>;
    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, Status>;
    async fn reopen_container_log(&self, id: &str) -> Result<(), Status>;
    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse, Status>>, Status>;
    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Status>;
    async fn list_pod_sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Status> {
        Err(Status::unimplemented("ListPodSandboxStats"))
    }
    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), Status> {
        let _ = (id, resources);
        Err(Status::unimplemented("UpdateContainerResources"))
    }
    async fn list_images(&self) -> Result<Vec<v1::Image>, Status>;
    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Status>;
    /// The mirrors that a pull of `image` would ask, `host[:port]`. Our own service beside the CRI, as
    /// [`watch_pull`](Self::watch_pull).
    async fn mirrors(&self, image: &str) -> Result<Vec<String>, Status>;
    /// `mirrors` are credentials for mirrors, which only runtimes that tell of some know what to do with.
    async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        mirrors: Vec<progress::MirrorLogin>,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, Status>;
    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Status>;
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Status>;
    /// The states of the pull of `image` that is under way. This one is not CRI but our own service beside it;
    /// other runtimes answer `Unimplemented`.
    async fn watch_pull(
        &self,
        image: &str,
    ) -> Result<BoxStream<'static, Result<progress::WatchResponse, Status>>, Status>;
}

/// `error` as Go prints a gRPC error; upstream's events and messages hold this form.
pub fn go_error(error: &Status) -> String {
    let code = match error.code() {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", error.message())
}

/// An empty message field means "unset" in proto3; for the kubelet a missing status is the runtime's bug.
fn required<T>(message: Option<T>, what: &str) -> Result<T, Status> {
    message.ok_or_else(|| Status::internal(format!("the runtime answered without `{what}`")))
}

/// Upstream's `runtimeRequestTimeout`, when nothing is configured.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The runtime behind a CRI socket, which may take its time, but not for ever.
#[derive(Clone, Debug)]
pub struct CriRuntime {
    client: sampan_cri::client::Client,
    /// How long it may take for an answer; twice as long for a sandbox, and longer by the time that the call itself
    /// allows. Pulls and events take as long as they do.
    limit: Duration,
}

impl CriRuntime {
    /// The runtime of this connection, with `runtimeRequestTimeout`; 2 minutes without one.
    #[must_use]
    pub fn new(client: sampan_cri::client::Client, request_timeout: Option<Duration>) -> Self {
        let limit = request_timeout.filter(|limit| !limit.is_zero()).unwrap_or(REQUEST_TIMEOUT);
        Self { client, limit }
    }

    /// For what walks over disks, which upstream does not bound at all.
    fn patience(&self) -> Duration {
        self.limit.max(REQUEST_TIMEOUT)
    }
}

/// The answer of a call, or an error that names it when the runtime hangs. A call given up ends in the runtime too.
async fn within<T>(
    limit: Duration,
    call: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        Err(Status::deadline_exceeded(format!(
            "context deadline exceeded: the container runtime has not answered {call} for {seconds} s"
        )))
    })
}

/// CRI's seconds; negative ones count as none.
fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[async_trait]
impl ContainerRuntime for CriRuntime {
    async fn version(&self) -> Result<v1::VersionResponse, Status> {
        let request = v1::VersionRequest { version: "v1".to_owned() };
        Ok(within(self.limit, "Version", self.client.runtime.clone().version(request)).await?.into_inner())
    }

    async fn status(&self) -> Result<v1::StatusResponse, Status> {
        Ok(within(
            self.limit,
            "Status",
            self.client.runtime.clone().status(v1::StatusRequest { verbose: false }),
        )
        .await?
        .into_inner())
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, Status> {
        Ok(within(
            self.limit,
            "RuntimeConfig",
            self.client.runtime.clone().runtime_config(v1::RuntimeConfigRequest {}),
        )
        .await?
        .into_inner())
    }

    async fn update_pod_cidr(&self, pod_cidr: String) -> Result<(), Status> {
        let network_config = Some(v1::NetworkConfig { pod_cidr });
        let runtime_config = Some(v1::RuntimeConfig { network_config });
        let request = v1::UpdateRuntimeConfigRequest { runtime_config };
        within(self.limit, "UpdateRuntimeConfig", self.client.runtime.clone().update_runtime_config(request))
            .await
            .map(drop)
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: String) -> Result<String, Status> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        Ok(within(2 * self.limit, "RunPodSandbox", self.client.runtime.clone().run_pod_sandbox(request))
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        within(self.limit, "StopPodSandbox", self.client.runtime.clone().stop_pod_sandbox(request))
            .await
            .map(drop)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        within(self.limit, "RemovePodSandbox", self.client.runtime.clone().remove_pod_sandbox(request))
            .await
            .map(drop)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Status> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        required(
            within(self.limit, "PodSandboxStatus", self.client.runtime.clone().pod_sandbox_status(request))
                .await?
                .into_inner()
                .status,
            "status",
        )
    }

    async fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Result<Vec<v1::PodSandbox>, Status> {
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        Ok(within(self.limit, "ListPodSandbox", self.client.runtime.clone().list_pod_sandbox(request))
            .await?
            .into_inner()
            .items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(within(self.limit, "CreateContainer", self.client.runtime.clone().create_container(request))
            .await?
            .into_inner()
            .container_id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Status> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        within(self.limit, "StartContainer", self.client.runtime.clone().start_container(request))
            .await
            .map(drop)
    }

    async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<(), Status> {
        let limit = self.limit + seconds(timeout_seconds);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: timeout_seconds };
        within(limit, "StopContainer", self.client.runtime.clone().stop_container(request)).await.map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        within(self.limit, "RemoveContainer", self.client.runtime.clone().remove_container(request))
            .await
            .map(drop)
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Status> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        required(
            within(self.limit, "ContainerStatus", self.client.runtime.clone().container_status(request))
                .await?
                .into_inner()
                .status,
            "status",
        )
    }

    async fn list_containers(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>, Status> {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(within(self.limit, "ListContainers", self.client.runtime.clone().list_containers(request))
            .await?
            .into_inner()
            .containers)
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout_seconds: i64,
    ) -> Result<v1::ExecSyncResponse, Status> {
        // Without a time limit of its own a command may take as long as it likes.
        let limit = if timeout_seconds > 0 { self.limit + seconds(timeout_seconds) } else { Duration::MAX };
        let request =
            v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: timeout_seconds };
        Ok(within(limit, "ExecSync", self.client.runtime.clone().exec_sync(request)).await?.into_inner())
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String, Status> {
        Ok(within(self.limit, "Exec", self.client.runtime.clone().exec(request)).await?.into_inner().url)
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String, Status> {
        Ok(within(self.limit, "Attach", self.client.runtime.clone().attach(request)).await?.into_inner().url)
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, Status> {
        Ok(within(self.limit, "PortForward", self.client.runtime.clone().port_forward(request))
            .await?
            .into_inner()
            .url)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), Status> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        within(self.limit, "ReopenContainerLog", self.client.runtime.clone().reopen_container_log(request))
            .await
            .map(drop)
    }

    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse, Status>>, Status> {
        Ok(self
            .client
            .runtime
            .clone()
            .get_container_events(v1::GetEventsRequest {})
            .await?
            .into_inner()
            .boxed())
    }

    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Status> {
        let request = v1::ListContainerStatsRequest { filter: None };
        Ok(within(
            self.patience(),
            "ListContainerStats",
            self.client.runtime.clone().list_container_stats(request),
        )
        .await?
        .into_inner()
        .stats)
    }

    async fn list_pod_sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>, Status> {
        let request = v1::ListPodSandboxStatsRequest { filter: None };
        Ok(within(
            self.limit,
            "ListPodSandboxStats",
            self.client.runtime.clone().list_pod_sandbox_stats(request),
        )
        .await?
        .into_inner()
        .stats)
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), Status> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        within(
            self.limit,
            "UpdateContainerResources",
            self.client.runtime.clone().update_container_resources(request),
        )
        .await
        .map(drop)
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>, Status> {
        Ok(within(
            self.limit,
            "ListImages",
            self.client.images.clone().list_images(v1::ListImagesRequest { filter: None }),
        )
        .await?
        .into_inner()
        .images)
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Status> {
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        Ok(within(self.limit, "ImageStatus", self.client.images.clone().image_status(request))
            .await?
            .into_inner()
            .image)
    }

    async fn mirrors(&self, image: &str) -> Result<Vec<String>, Status> {
        let request = progress::MirrorsRequest { image: image.to_owned() };
        Ok(self.client.progress.clone().mirrors(request).await?.into_inner().hosts)
    }

    async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        mirrors: Vec<progress::MirrorLogin>,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = v1::PullImageRequest { image: Some(image), auth, sandbox_config: Some(sandbox) };
        let mut request = tonic::Request::new(request);
        mirrors::attach(&mut request, mirrors);
        Ok(self.client.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Status> {
        let request = v1::RemoveImageRequest { image: Some(image) };
        within(self.limit, "RemoveImage", self.client.images.clone().remove_image(request)).await.map(drop)
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Status> {
        Ok(within(
            self.patience(),
            "ImageFsInfo",
            self.client.images.clone().image_fs_info(v1::ImageFsInfoRequest {}),
        )
        .await?
        .into_inner())
    }

    async fn watch_pull(
        &self,
        image: &str,
    ) -> Result<BoxStream<'static, Result<progress::WatchResponse, Status>>, Status> {
        let request = progress::WatchRequest { image: image.to_owned(), wait_seconds: 2 };
        Ok(self.client.progress.clone().watch(request).await?.into_inner().boxed())
    }
}

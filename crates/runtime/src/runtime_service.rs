//! CRI's RuntimeService: one file per method. This file only takes requests apart and puts answers together.
//!
//! Calls that change something run as tasks of their own: a kubelet that gives up waiting must not leave a
//! sandbox half made.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use sampan_cri::v1::{self, runtime_service_server::RuntimeService};
use tonic::{Request, Response, Status};

use crate::runtime::Runtime;

mod attach;
mod container_stats;
mod container_status;
mod create_container;
mod exec;
mod exec_sync;
mod get_container_events;
mod list_containers;
mod list_pod_sandbox;
mod metrics;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod port_forward;
mod remove_container;
mod remove_pod_sandbox;
mod reopen_container_log;
mod run_pod_sandbox;
mod runtime_config;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod update_container_resources;
mod update_pod_sandbox_resources;
mod update_runtime_config;
mod version;

/// The service over a runtime.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<Runtime>);

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// Items in one message of a streaming list.
const STREAM_CHUNK: usize = 100;

/// Runs a call to its end whether or not the client waits.
async fn detached<T: Send + 'static>(
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(call).await {
        Ok(answer) => answer.map(Response::new),
        Err(error) => Err(Status::internal(format!("the call died: {error}"))),
    }
}

/// Runs a call that reads many small files off the async threads.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// A list in pieces.
fn chunked<I: Clone + Send + 'static, T: Send + 'static>(
    items: &[I],
    message: impl Fn(Vec<I>) -> T,
) -> BoxStream<T> {
    let messages: Vec<Result<T, Status>> =
        items.chunks(STREAM_CHUNK).map(|chunk| Ok(message(chunk.to_vec()))).collect();
    Box::pin(futures::stream::iter(messages))
}

fn matches_labels(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The protocol's rules for exec and attach.
fn check_streams(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<(), Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = BoxStream<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = BoxStream<v1::StreamContainersResponse>;
    type StreamContainerStatsStream = BoxStream<v1::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = BoxStream<v1::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = BoxStream<v1::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = BoxStream<v1::ContainerEventResponse>;

    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(version::version()))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        detached(run_pod_sandbox::run_pod_sandbox(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        detached(stop_pod_sandbox::stop_pod_sandbox(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        detached(remove_pod_sandbox::remove_pod_sandbox(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        pod_sandbox_status::pod_sandbox_status(&self.0, request.get_ref()).map(Response::new)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let items = list_pod_sandbox::list_pod_sandbox(&self.0, request.into_inner().filter);
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = list_pod_sandbox::list_pod_sandbox(&self.0, request.into_inner().filter);
        Ok(Response::new(chunked(&items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        detached(create_container::create_container(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        detached(start_container::start_container(Arc::clone(&self.0), request.into_inner())).await
    }

    /// Not detached: a kubelet that gives up on a long grace period may call again with a shorter one.
    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        stop_container::stop_container(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        detached(remove_container::remove_container(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let containers = list_containers::list_containers(&self.0, request.into_inner().filter);
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let items = list_containers::list_containers(&self.0, request.into_inner().filter);
        Ok(Response::new(chunked(&items, |containers| v1::StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        container_status::container_status(&self.0, request.get_ref()).map(Response::new)
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let call =
            update_container_resources::update_container_resources(Arc::clone(&self.0), request.into_inner());
        detached(call).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        detached(reopen_container_log::reopen_container_log(Arc::clone(&self.0), request.into_inner())).await
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        // Not detached: who asked is gone, and so shall be the command.
        exec_sync::exec_sync(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        exec::exec(&self.0, request.into_inner()).map(Response::new)
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        attach::attach(&self.0, request.into_inner()).map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        port_forward::port_forward(&self.0, request.into_inner()).map(Response::new)
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().container_id);
        let stats = blocking(move || container_stats::one(&runtime, &id)).await?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let (runtime, filter) = (Arc::clone(&self.0), request.into_inner().filter);
        let stats = blocking(move || Ok(container_stats::list(&runtime, filter))).await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let (runtime, filter) = (Arc::clone(&self.0), request.into_inner().filter);
        let items = blocking(move || Ok(container_stats::list(&runtime, filter))).await?;
        Ok(Response::new(chunked(&items, |container_stats| v1::StreamContainerStatsResponse {
            container_stats,
        })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let (runtime, id) = (Arc::clone(&self.0), request.into_inner().pod_sandbox_id);
        let stats = blocking(move || pod_sandbox_stats::one(&runtime, &id)).await?;
        Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let (runtime, filter) = (Arc::clone(&self.0), request.into_inner().filter);
        let stats = blocking(move || Ok(pod_sandbox_stats::list(&runtime, filter))).await?;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let (runtime, filter) = (Arc::clone(&self.0), request.into_inner().filter);
        let items = blocking(move || Ok(pod_sandbox_stats::list(&runtime, filter))).await?;
        let message = |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats };
        Ok(Response::new(chunked(&items, message)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        Ok(Response::new(update_runtime_config::update_runtime_config(request.get_ref())))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(status::status(&self.0, request.into_inner()).await))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints need CRIU, which the embedded runtime does not drive"))
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(get_container_events::get_container_events(&self.0)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        let runtime = Arc::clone(&self.0);
        let pod_metrics = blocking(move || Ok(metrics::list(&runtime))).await?;
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let runtime = Arc::clone(&self.0);
        let items = blocking(move || Ok(metrics::list(&runtime))).await?;
        let message = |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        Ok(Response::new(chunked(&items, message)))
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        Ok(Response::new(runtime_config::runtime_config(&self.0)))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        update_pod_sandbox_resources::update_pod_sandbox_resources(&self.0, request.into_inner())
            .map(Response::new)
    }
}

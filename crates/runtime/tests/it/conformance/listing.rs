//! Lists, filters, statuses, events, stats: what a kubelet reads.

use futures::StreamExt;
use sampan_cri::v1::{self, ContainerEventType, ContainerState};

use super::{Check, Target, labels};

pub async fn version_status_and_configuration(target: &Target) -> Check {
    let mut runtime = target.client.runtime.clone();
    let version = runtime.version(v1::VersionRequest::default()).await?.into_inner();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    let status = runtime.status(v1::StatusRequest { verbose: true }).await?.into_inner();
    let conditions = status.status.unwrap().conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        assert!(conditions.iter().any(|condition| condition.r#type == kind && condition.status), "{kind}");
    }
    assert!(status.runtime_handlers.iter().any(|handler| handler.name.is_empty()));
    assert!(!status.info.is_empty());
    let config = runtime.runtime_config(v1::RuntimeConfigRequest::default()).await?.into_inner();
    assert_eq!(config.linux.unwrap().cgroup_driver(), v1::CgroupDriver::Cgroupfs);
    runtime.update_runtime_config(v1::UpdateRuntimeConfigRequest::default()).await?;
    let checkpoint = runtime.checkpoint_container(v1::CheckpointContainerRequest::default()).await;
    assert_eq!(checkpoint.expect_err("not there").code(), tonic::Code::Unimplemented);
    Ok(())
}

pub async fn lists_can_be_filtered(target: &Target) -> Check {
    let mut runtime = target.client.runtime.clone();
    let (pod, id) = target.sleeper("filter", |_, _| {}).await?;
    let (other, _) = target.sleeper("other", |_, _| {}).await?;
    let filter = v1::PodSandboxFilter { label_selector: labels(&[("pod", "filter")]), ..Default::default() };
    let list = v1::ListPodSandboxRequest { filter: Some(filter) };
    let pods = runtime.list_pod_sandbox(list).await?.into_inner().items;
    assert_eq!(pods.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&pod]);
    for (filter, found) in [
        (v1::ContainerFilter { pod_sandbox_id: pod.clone(), ..Default::default() }, true),
        (v1::ContainerFilter { id: id[..12].to_owned(), ..Default::default() }, true),
        (v1::ContainerFilter { pod_sandbox_id: other.clone(), ..Default::default() }, false),
        (
            v1::ContainerFilter { label_selector: labels(&[("container", "main")]), ..Default::default() },
            true,
        ),
        (v1::ContainerFilter { label_selector: labels(&[("container", "x")]), ..Default::default() }, false),
        (
            v1::ContainerFilter {
                state: Some(v1::ContainerStateValue { state: ContainerState::ContainerExited.into() }),
                ..Default::default()
            },
            false,
        ),
    ] {
        let request = v1::ListContainersRequest { filter: Some(filter.clone()) };
        let containers = runtime.list_containers(request).await?.into_inner().containers;
        assert_eq!(containers.iter().any(|container| container.id == id), found, "{filter:?}");
        let request = v1::StreamContainersRequest { filter: Some(filter) };
        let mut stream = runtime.stream_containers(request).await?.into_inner();
        let mut streamed = Vec::new();
        while let Some(message) = stream.next().await {
            streamed.extend(message?.containers);
        }
        assert_eq!(streamed, containers);
    }
    // An id may be cut short.
    assert_eq!(target.status(&id[..10]).await?.id, id);
    let verbose = v1::ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let info = runtime.container_status(verbose).await?.into_inner().info;
    assert!(info["info"].contains("\"pid\""));
    target.remove_pod(&other).await?;
    target.remove_pod(&pod).await
}

pub async fn images_are_named_alike_everywhere(target: &Target) -> Check {
    let (pod, id) = target.sleeper("names", |_, _| {}).await?;
    let request = v1::ImageStatusRequest {
        image: Some(v1::ImageSpec { image: target.image.clone(), ..Default::default() }),
        verbose: false,
    };
    let image = target.client.images.clone().image_status(request).await?.into_inner().image.unwrap();
    let status = target.status(&id).await?;
    assert_eq!(status.image_id, image.id);
    assert!(!status.image_ref.is_empty());
    assert_eq!(status.image.unwrap().image, target.image);
    target.remove_pod(&pod).await
}

pub async fn events_tell_of_every_change(target: &Target) -> Check {
    let mut events =
        target.client.runtime.clone().get_container_events(v1::GetEventsRequest {}).await?.into_inner();
    let config = target.pod("events");
    let pod = target.run_pod(&config).await?;
    let id = target.run(&pod, target.container("main", &["true"]), &config).await?;
    target.ended(&id).await?;
    target.remove_pod(&pod).await?;
    let mut seen = Vec::new();
    while !seen.contains(&(pod.clone(), ContainerEventType::ContainerDeletedEvent)) {
        let event = tokio::time::timeout(std::time::Duration::from_secs(10), events.next())
            .await
            .unwrap_or_else(|_| panic!("only {seen:?}"))
            .unwrap()?;
        assert!(event.created_at > 0 && event.pod_sandbox_status.is_some());
        seen.push((event.container_id.clone(), event.container_event_type()));
    }
    use ContainerEventType::{
        ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
    };
    let of = |wanted: &str| -> Vec<ContainerEventType> {
        seen.iter().filter(|(of, _)| of == wanted).map(|(_, kind)| *kind).collect()
    };
    let all = [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent];
    assert_eq!(of(&id), all);
    assert_eq!(of(&pod), all);
    Ok(())
}

pub async fn stats_count_what_runs(target: &Target) -> Check {
    let mut runtime = target.client.runtime.clone();
    let (pod, id) = target.sleeper("stats", |_, _| {}).await?;
    let list = runtime.list_container_stats(v1::ListContainerStatsRequest::default()).await?.into_inner();
    let stats = list.stats.iter().find(|stats| stats.attributes.as_ref().unwrap().id == id).unwrap();
    assert!(stats.memory.as_ref().unwrap().usage_bytes.unwrap().value > 0);
    let layer = stats.writable_layer.as_ref().unwrap();
    assert!(layer.timestamp > 0 && layer.fs_id.is_some());
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let linux = runtime.pod_sandbox_stats(request).await?.into_inner().stats.unwrap().linux.unwrap();
    assert_eq!(linux.containers.len(), 1);
    if target.has_network {
        assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
    }
    let descriptors =
        runtime.list_metric_descriptors(v1::ListMetricDescriptorsRequest {}).await?.into_inner().descriptors;
    let metrics =
        runtime.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await?.into_inner().pod_metrics;
    let metric = &metrics[0].container_metrics[0].metrics[0];
    let descriptor = descriptors.iter().find(|descriptor| descriptor.name == metric.name).unwrap();
    assert_eq!(descriptor.label_keys.len(), metric.label_values.len());
    target.remove_pod(&pod).await
}

pub async fn messages_have_a_limit(target: &Target) -> Check {
    // The client's own bound is out of the way: the runtime has to hold its own, and to live on.
    let mut runtime = target.client.runtime.clone().max_encoding_message_size(64 << 20);
    let request = |size: usize| {
        let label = "x".repeat(size);
        let filter = v1::ContainerFilter { label_selector: labels(&[("a", &label)]), ..Default::default() };
        v1::ListContainersRequest { filter: Some(filter) }
    };
    let fits = runtime.list_containers(request((16 << 20) - 1024)).await?.into_inner();
    assert!(fits.containers.is_empty());
    let refused = runtime.list_containers(request(17 << 20)).await.expect_err("too long");
    let code = refused.code();
    assert!(matches!(code, tonic::Code::ResourceExhausted | tonic::Code::OutOfRange), "{refused}");
    runtime.version(v1::VersionRequest::default()).await.map(drop)
}

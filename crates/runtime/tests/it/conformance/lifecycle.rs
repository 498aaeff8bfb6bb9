//! Pods and containers from their making to their end.

use sampan_cri::v1::{self, ContainerState, PodSandboxState};
use tonic::Code;

use super::{Check, Target};

pub async fn a_pod_lives_and_dies(target: &Target) -> Check {
    let mut runtime = target.client.runtime.clone();
    let config = target.pod("life");
    let pod = target.run_pod(&config).await?;
    let status = target.pod_status(&pod).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, config.metadata);
    assert_eq!(status.annotations, config.annotations);
    assert!(status.created_at > 0);
    if target.has_network {
        let ip = status.network.unwrap().ip;
        assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip:?}");
    }

    let container = target.create(&pod, target.container("main", &["probe", "polite"]), &config).await?;
    let created = target.status(&container).await?;
    assert_eq!(created.state(), ContainerState::ContainerCreated);
    assert_eq!((created.started_at, created.finished_at), (0, 0));
    target.start(&container).await?;
    let running = target.status(&container).await?;
    assert_eq!(running.state(), ContainerState::ContainerRunning);
    assert!(running.started_at >= running.created_at);
    assert_eq!(target.start(&container).await.expect_err("started twice").code(), Code::FailedPrecondition);
    assert_eq!(target.log(&container, 1).await?, [("stdout".to_owned(), "ready".to_owned())]);

    target.stop(&container, 20).await?;
    let stopped = target.status(&container).await?;
    assert_eq!(stopped.state(), ContainerState::ContainerExited);
    assert_eq!((stopped.exit_code, stopped.reason.as_str()), (7, "Error"));
    assert!(stopped.finished_at >= stopped.started_at);
    // Everything may be said twice.
    target.stop(&container, 1).await?;
    target.remove(&container).await?;
    target.remove(&container).await?;
    assert_eq!(target.status(&container).await.expect_err("removed").code(), Code::NotFound);

    target.stop_pod(&pod).await?;
    assert_eq!(target.pod_status(&pod).await?.state(), PodSandboxState::SandboxNotready);
    target.stop_pod(&pod).await?;
    target.remove_pod(&pod).await?;
    target.remove_pod(&pod).await?;
    assert_eq!(target.pod_status(&pod).await.expect_err("removed").code(), Code::NotFound);
    let list = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner();
    assert!(list.items.iter().all(|item| item.id != pod));
    Ok(())
}

pub async fn pod_09_exit_codes_and_reasons(target: &Target) -> Check {
    let config = target.pod("exits");
    let pod = target.run_pod(&config).await?;
    for (name, command, code, reason) in
        [("fine", &["true"][..], 0, "Completed"), ("three", &["probe", "exit", "3"][..], 3, "Error")]
    {
        let id = target.run(&pod, target.container(name, command), &config).await?;
        let status = target.ended(&id).await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
        assert!(status.finished_at > 0 && status.started_at > 0);
    }
    target.remove_pod(&pod).await
}

pub async fn pod_09_a_missing_command_is_a_start_error(target: &Target) -> Check {
    let config = target.pod("missing");
    let pod = target.run_pod(&config).await?;
    let id = target.create(&pod, target.container("main", &["no-such-program"]), &config).await?;
    let error = target.start(&id).await.expect_err("there is no such program");
    assert!(error.message().contains("no-such-program"), "{}", error.message());
    let status = target.status(&id).await?;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.message.contains("no-such-program"), "{}", status.message);
    target.remove_pod(&pod).await
}

pub async fn stopping_escalates_to_sigkill(target: &Target) -> Check {
    let config = target.pod("stubborn");
    let pod = target.run_pod(&config).await?;
    let id = target.run(&pod, target.container("main", &["probe", "stubborn"]), &config).await?;
    target.log(&id, 1).await?;
    let began = std::time::Instant::now();
    target.stop(&id, 1).await?;
    assert!(began.elapsed().as_millis() >= 1000);
    let status = target.status(&id).await?;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    target.remove_pod(&pod).await
}

pub async fn the_pods_stop_signal_is_used(target: &Target) -> Check {
    let config = target.pod("signal");
    let pod = target.run_pod(&config).await?;
    let mut container = target.container("main", &["probe", "polite"]);
    container.stop_signal = v1::Signal::Sigquit.into();
    let id = target.run(&pod, container, &config).await?;
    target.log(&id, 1).await?;
    assert_eq!(target.status(&id).await?.stop_signal(), v1::Signal::Sigquit);
    target.stop(&id, 20).await?;
    assert_eq!(target.status(&id).await?.exit_code, 8);
    target.remove_pod(&pod).await
}

pub async fn removing_a_pod_ends_its_containers(target: &Target) -> Check {
    let (pod, container) = target.sleeper("sudden", |_, _| {}).await?;
    target.remove_pod(&pod).await?;
    assert_eq!(target.status(&container).await.expect_err("removed").code(), Code::NotFound);
    Ok(())
}

/// All pods of a target have one parent cgroup, which the first one makes.
pub async fn removing_a_stopped_pod_leaves_its_neighbours_alone(target: &Target) -> Check {
    let (first, _) = target.sleeper("first", |_, _| {}).await?;
    target.stop_pod(&first).await?;
    let (second, container) = target.sleeper("second", |_, _| {}).await?;
    target.stop_pod(&first).await?;
    target.remove_pod(&first).await?;
    let still = target.status(&container).await?;
    assert_eq!(still.state(), ContainerState::ContainerRunning, "{} {}", still.exit_code, still.reason);
    assert_eq!(target.output(&container, &["echo", "here"]).await?, "here\n");
    target.remove_pod(&second).await
}

pub async fn a_running_container_can_be_removed(target: &Target) -> Check {
    let (pod, container) = target.sleeper("forced", |_, _| {}).await?;
    target.remove(&container).await?;
    assert_eq!(target.status(&container).await.expect_err("removed").code(), Code::NotFound);
    target.remove_pod(&pod).await
}

pub async fn names_are_unique(target: &Target) -> Check {
    let config = target.pod("twice");
    let pod = target.run_pod(&config).await?;
    assert!(target.run_pod(&config).await.is_err());
    let id = target.create(&pod, target.container("main", &["true"]), &config).await?;
    assert!(target.create(&pod, target.container("main", &["true"]), &config).await.is_err());
    target.remove(&id).await?;
    let again = target.create(&pod, target.container("main", &["true"]), &config).await?;
    target.remove(&again).await?;
    target.remove_pod(&pod).await?;
    let pod = target.run_pod(&config).await?;
    target.remove_pod(&pod).await
}

pub async fn nothing_is_left_of_a_refused_request(target: &Target) -> Check {
    let config = target.pod("refused");
    let mut nameless = config.clone();
    nameless.metadata = None;
    assert_eq!(target.run_pod(&nameless).await.expect_err("no metadata").code(), Code::InvalidArgument);
    let mut sysctl = config.clone();
    sysctl.linux.get_or_insert_default().sysctls =
        super::labels(&[("kernel.shm_rmid_forced", "not a number")]);
    assert!(target.run_pod(&sysctl).await.is_err());
    let pod = target.run_pod(&config).await?;
    let mut unknown = target.container("main", &["true"]);
    unknown.image =
        Some(v1::ImageSpec { image: "example.invalid/no/image:1".to_owned(), ..Default::default() });
    assert_eq!(target.create(&pod, unknown, &config).await.expect_err("no image").code(), Code::NotFound);
    let mut user = target.container("main", &["true"]);
    super::security(&mut user).run_as_username = "nobody-here".to_owned();
    assert!(target.create(&pod, user, &config).await.is_err());
    target.remove_pod(&pod).await
}

pub async fn rtc_18_an_unknown_handler_is_refused(target: &Target) -> Check {
    let error =
        target.run_pod_with(&target.pod("handler"), "no-such-handler").await.expect_err("unknown handler");
    assert!(
        error.message().contains("no runtime for \"no-such-handler\" is configured"),
        "{}",
        error.message()
    );
    Ok(())
}

/// An id that nobody has.
const NEVER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub async fn stopping_and_removing_again_is_no_error(target: &Target) -> Check {
    let config = target.pod("again");
    let pod = target.run_pod(&config).await?;
    // What has never run, too.
    let created = target.create(&pod, target.container("created", &["true"]), &config).await?;
    target.stop(&created, 1).await?;
    let id = target.run(&pod, target.container("main", &["sleep", "3600"]), &config).await?;
    for _ in 0..2 {
        target.stop(&id, 0).await?;
    }
    for _ in 0..2 {
        target.remove(&id).await?;
        target.remove(&created).await?;
    }
    for _ in 0..2 {
        target.stop_pod(&pod).await?;
    }
    for _ in 0..2 {
        target.remove_pod(&pod).await?;
    }
    // What never was has been removed already, as far as anybody can tell.
    target.remove(NEVER).await?;
    target.remove_pod(NEVER).await
}

pub async fn a_pod_that_is_gone_can_be_stopped(target: &Target) -> Check {
    let pod = target.run_pod(&target.pod("gone")).await?;
    target.remove_pod(&pod).await?;
    target.stop_pod(&pod).await?;
    target.stop_pod(NEVER).await
}

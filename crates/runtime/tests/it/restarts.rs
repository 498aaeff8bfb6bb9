//! The daemon dies and comes back: containers never notice.

use std::time::{Duration, Instant};

use sampan_cri::v1::{ContainerState, PodSandboxState};

use super::conformance::read_log;
use super::node::Node;

fn pid_of(info: &std::collections::HashMap<String, String>) -> i64 {
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_i64().unwrap()
}

async fn pid(node: &Node, container: &str) -> i64 {
    let request =
        sampan_cri::v1::ContainerStatusRequest { container_id: container.to_owned(), verbose: true };
    pid_of(&node.target.client.runtime.clone().container_status(request).await.unwrap().into_inner().info)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_run_on_and_lose_no_line() {
    let mut node = Node::start().await;
    let config = node.target.pod("running");
    let pod = node.target.run_pod(&config).await.unwrap();
    let id = node
        .target
        .run(&pod, node.target.container("main", &["probe", "count", "10"]), &config)
        .await
        .unwrap();
    let before = pid(&node, &id).await;
    node.target.log(&id, 3).await.unwrap();
    node.restart().await;
    let status = node.target.status(&id).await.unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(pid(&node, &id).await, before);
    let lines = read_log(&status.log_path).len();
    let log = node.target.log(&id, lines + 5).await.unwrap();
    for (number, (_, text)) in log.iter().enumerate() {
        assert_eq!(text, &format!("line {number}"));
    }
    assert_eq!(node.target.output(&id, &["echo", "hello"]).await.unwrap(), "hello\n");
    // Its end is heard of as before.
    node.target.stop(&id, 0).await.unwrap();
    assert_eq!(node.target.status(&id).await.unwrap().exit_code, 137);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_in_between_is_recorded() {
    let mut node = Node::start().await;
    let config = node.target.pod("between");
    let pod = node.target.run_pod(&config).await.unwrap();
    let id =
        node.target.run(&pod, node.target.container("main", &["probe", "polite"]), &config).await.unwrap();
    node.target.log(&id, 1).await.unwrap();
    let pid = pid(&node, &id).await;
    node.stop_serving().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.restart().await;
    let status = node.target.ended(&id).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.finished_at > status.started_at);
    assert_eq!(node.target.pod_status(&pod).await.unwrap().state(), PodSandboxState::SandboxReady);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_record_is_damaged_is_what_its_first_record_and_its_shim_say() {
    let mut node = Node::start().await;
    let config = node.target.pod("damaged");
    let pod = node.target.run_pod(&config).await.unwrap();
    let runs =
        node.target.run(&pod, node.target.container("runs", &["sleep", "600"]), &config).await.unwrap();
    let ended = node
        .target
        .run(&pod, node.target.container("ended", &["probe", "exit", "3"]), &config)
        .await
        .unwrap();
    node.target.ended(&ended).await.unwrap();
    let before = node.target.status(&runs).await.unwrap();
    node.stop_serving().await;
    // As power that was lost leaves files.
    for id in [&runs, &ended] {
        std::fs::write(node.dir.join("data/containers").join(id).join("container.json"), "").unwrap();
    }
    node.restart().await;
    let status = node.target.status(&runs).await.unwrap();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!((&status.metadata, &status.labels), (&before.metadata, &before.labels));
    assert!(status.started_at > 0);
    let status = node.target.ended(&ended).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert_eq!(status.metadata.unwrap().name, "ended");
    node.target.remove(&ended).await.unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_ends_its_pod() {
    let mut node = Node::start().await;
    let config = node.target.pod("shimless");
    let pod = node.target.run_pod(&config).await.unwrap();
    let id = node.target.run(&pod, node.target.container("main", &["sleep", "600"]), &config).await.unwrap();
    let shim = sampan_shim::client::Shim::connect(&node.run_dir().join("shims").join(&pod)).await.unwrap();
    let shim = rustix::process::Pid::from_raw(shim.state().await.unwrap().pid).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let status = node.target.ended(&id).await.unwrap();
    assert_eq!(status.exit_code, 137);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.target.pod_status(&pod).await.unwrap().state() == PodSandboxState::SandboxReady {
        assert!(Instant::now() < deadline, "the pod still counts as ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.restart().await;
    assert_eq!(node.target.status(&id).await.unwrap().exit_code, 137);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_made_things_go_away() {
    let mut node = Node::start().await;
    let config = node.target.pod("half");
    let pod = node.target.run_pod(&config).await.unwrap();
    let made =
        node.target.create(&pod, node.target.container("kept", &["sleep", "60"]), &config).await.unwrap();
    let lost =
        node.target.create(&pod, node.target.container("lost", &["sleep", "60"]), &config).await.unwrap();
    node.stop_serving().await;
    // As after a crash in the middle: the record of one container is not there yet, and a sandbox is unfinished.
    let data = node.dir.join("data");
    std::fs::remove_dir_all(data.join("containers").join(&lost)).unwrap();
    let record = data.join("sandboxes").join(format!("{pod}.json"));
    let unfinished = std::fs::read_to_string(&record).unwrap();
    let other = "0123456789abcdef0123456789abcdef";
    let unfinished = unfinished.replace("\"Ready\"", "\"Creating\"").replace(&pod, other);
    std::fs::write(data.join("sandboxes").join(format!("{other}.json")), unfinished).unwrap();
    std::fs::write(data.join("sandboxes").join("broken.json"), "{").unwrap();
    node.restart().await;
    assert_eq!(node.target.status(&made).await.unwrap().state(), ContainerState::ContainerCreated);
    assert!(node.target.status(&lost).await.is_err());
    assert!(node.target.pod_status(other).await.is_err());
    assert!(!node.run_dir().join("containers").join(&lost).exists());
    // What was made can still be started.
    node.target.start(&made).await.unwrap();
    node.finish().await;
}

/// What the daemon asks a shim for, with an OCI runtime of the test's.
fn create(
    node: &Node,
    id: &str,
    path: std::path::PathBuf,
    args: &[&str],
) -> sampan_shim::protocol::CreateContainer {
    let runtime = sampan_shim::protocol::OciRuntime {
        path,
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        root: node.run_dir().join("oci").join("sampan"),
        hide_unified: false,
        opaque: false,
    };
    sampan_shim::protocol::CreateContainer {
        id: id.to_owned(),
        bundle: node.run_dir().join("containers").join(id),
        runtime,
        log_path: None,
        tty: false,
        stdin: false,
        stdin_once: false,
        memory_cgroup: None,
        timeout_ms: None,
    }
}

/// A runtime that takes its time to create a container: a daemon that dies in the middle of StartContainer leaves it
/// being made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_still_being_made_goes_away() {
    use sampan_shim::protocol::Status;
    let mut node = Node::start().await;
    let config = node.target.pod("interrupted");
    let pod = node.target.run_pod(&config).await.unwrap();
    let id =
        node.target.create(&pod, node.target.container("slow", &["sleep", "60"]), &config).await.unwrap();
    let script = node.dir.join("slow-runtime");
    let executable = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *\" create \"*) sleep 2;; esac\nexec {} oci \"$@\"\n",
        executable.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let shim = sampan_shim::client::Shim::connect(&node.run_dir().join("shims").join(&pod)).await.unwrap();
    let request = create(&node, &id, script, &[]);
    node.stop_serving().await;
    let calling = tokio::spawn({
        let shim = shim.clone();
        async move { shim.create(request).await }
    });
    let status = |state: sampan_shim::protocol::ShimState| state.containers.first().map(|c| c.status);
    while status(shim.state().await.unwrap()) != Some(Status::Creating) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calling.abort();
    node.restart().await;
    assert_eq!(status(shim.state().await.unwrap()), None, "what nobody waits for any more is left");
    assert_eq!(node.target.status(&id).await.unwrap().state(), ContainerState::ContainerCreated);
    node.target.start(&id).await.unwrap();
    // And one that is made behind the daemon's back goes with its sandbox.
    let other =
        node.target.create(&pod, node.target.container("other", &["sleep", "60"]), &config).await.unwrap();
    let init = shim.create(create(&node, &other, executable, &["oci"])).await.unwrap();
    node.target.stop_pod(&pod).await.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_before_the_start_leaves_a_whole_specification_at_any_moment() {
    let node = Node::start().await;
    let config = node.target.pod("update");
    let pod = node.target.run_pod(&config).await.unwrap();
    let id = node.target.create(&pod, node.target.container("main", &["true"]), &config).await.unwrap();
    let bundle = node.run_dir().join("containers").join(&id);
    let before = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    // The file as it was, whatever becomes of its name.
    std::fs::hard_link(bundle.join("config.json"), bundle.join("before")).unwrap();
    let linux = sampan_cri::v1::LinuxContainerResources { cpu_shares: 77, ..Default::default() };
    let request = sampan_cri::v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    node.target.client.runtime.clone().update_container_resources(request).await.unwrap();
    assert_eq!(std::fs::read_to_string(bundle.join("before")).unwrap(), before, "it was written in place");
    let after = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    let after: serde_json::Value = serde_json::from_str(&after).unwrap();
    assert_eq!(after["linux"]["resources"]["cpu"]["shares"], 77);
    node.target.start(&id).await.unwrap();
    assert_eq!(node.target.ended(&id).await.unwrap().exit_code, 0);
    node.finish().await;
}

/// The promise is a pod with its container in at most 40 ms; a debug build on a busy machine only prints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_pod_takes() {
    let node = Node::start_with_network().await;
    let mut times = Vec::new();
    for number in 0..5 {
        let config = node.target.pod(&format!("time-{number}"));
        let container = node.target.container("main", &["sleep", "600"]);
        let began = Instant::now();
        let pod = node.target.run_pod(&config).await.unwrap();
        let sandbox = began.elapsed();
        let id = node.target.create(&pod, container, &config).await.unwrap();
        let created = began.elapsed() - sandbox;
        node.target.start(&id).await.unwrap();
        times.push((began.elapsed(), sandbox, created));
    }
    times.sort();
    let (total, sandbox, created) = times[times.len() / 2];
    println!("pod and container running: {total:?} (sandbox {sandbox:?}, create {created:?}), median of 5");
    node.finish().await;
}

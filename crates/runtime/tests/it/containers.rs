//! The conformance checks against the embedded runtime, each on a node of its own.

use std::path::Path;
use std::time::Duration;

use sampan_cri::v1;

use super::conformance::{environment, every_check, execs, lifecycle, listing, security, streams};
use super::node::Node;

macro_rules! on_embedded {
    ($($start:ident: $($module:ident::$check:ident),* ;)*) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let node = Node::$start().await;
            let outcome = $module::$check(&node.target).await;
            node.finish().await;
            outcome.unwrap();
        }
    )*)*};
}

every_check!(on_embedded);

/// The same container, run by the engines that people have installed; one that is absent is skipped.
async fn on_engine(handler: &str, path: &str) {
    if !Path::new(path).exists() {
        println!("{path} is not here");
        return;
    }
    let mut node = Node::start().await;
    handler.clone_into(&mut node.target.handler);
    let target = &node.target;
    let outcome = async {
        lifecycle::pod_09_exit_codes_and_reasons(target).await?;
        lifecycle::pod_09_a_missing_command_is_a_start_error(target).await?;
        lifecycle::the_pods_stop_signal_is_used(target).await?;
        environment::env_03_user_group_and_directory(target).await?;
        environment::a_pod_can_share_its_pid_namespace(target).await?;
        environment::env_44_volumes_are_mounted(target).await?;
        execs::hook_06_exec_collects_both_streams(target).await?;
        security::capabilities_are_the_default_set(target).await?;
        security::no_new_privileges_and_seccomp(target).await?;
        security::too_much_memory_is_an_oom_kill(target).await?;
        security::limits_are_set_and_changed(target).await?;
        streams::a_terminal_has_the_clients_size(target).await?;
        streams::attach_joins_the_main_process(target).await
    }
    .await;
    node.finish().await;
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtc_17_runc_runs_the_pods_that_name_it() {
    on_engine("runc", "/usr/sbin/runc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtc_17_crun_runs_the_pods_that_name_it() {
    on_engine("crun", "/usr/bin/crun").await;
}

/// Calls at the same time, calls that are given up, another daemon: one signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hook_32_the_stop_signal_is_sent_once() {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is installed by `cargo xtask setup`");
    let mut node = Node::start().await;
    let config = node.target.pod("once");
    let pod = node.target.run_pod(&config).await.unwrap();
    let script = "trap 'echo t' TERM; echo ready; while :; do /busybox sleep 0.05; done";
    let mut container = node.target.container("main", &["/busybox", "sh", "-c", script]);
    container.mounts.push(v1::Mount {
        container_path: "/busybox".to_owned(),
        host_path: busybox.to_owned(),
        readonly: true,
        ..Default::default()
    });
    let id = node.target.run(&pod, container, &config).await.unwrap();
    node.target.log(&id, 1).await.unwrap();
    let given_up = |grace| tokio::time::timeout(Duration::from_secs(1), node.target.stop(&id, grace));
    let (long, short) = tokio::join!(given_up(60), given_up(30));
    assert!(long.is_err() && short.is_err(), "it goes on after its signal");
    node.restart().await;
    node.target.stop(&id, 1).await.unwrap();
    assert_eq!(node.target.status(&id).await.unwrap().exit_code, 137);
    let log = node.target.log(&id, 2).await.unwrap();
    let lines: Vec<&str> = log.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(lines, ["ready", "t"]);
    node.finish().await;
}

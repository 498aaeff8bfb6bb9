//! The conformance checks against the embedded runtime, each on a node of its own.

use super::conformance::{environment, execs, lifecycle, listing, security, streams};
use super::node::Node;

macro_rules! on_embedded {
    ($start:ident: $($module:ident::$check:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let node = Node::$start().await;
            let outcome = $module::$check(&node.target).await;
            node.finish().await;
            outcome.unwrap();
        }
    )*};
}

on_embedded! { start:
    environment::a_pod_can_share_its_pid_namespace,
    environment::containers_of_a_pod_share_memory_and_network,
    environment::env_01_the_root_can_be_read_only,
    environment::env_01_writes_stay_in_the_container,
    environment::env_03_user_group_and_directory,
    environment::env_04_variables_of_the_pod_win,
    environment::env_06_the_hostname_is_the_pods,
    environment::env_12_a_pod_in_the_hosts_network,
    environment::env_44_volumes_are_mounted,
    environment::an_image_can_be_a_volume,
    environment::an_ephemeral_container_sees_its_target,
    environment::sysctls_are_the_pods,
    environment::the_resolver_is_the_pods,
    execs::exec_that_takes_too_long_is_killed,
    execs::exec_whose_caller_is_gone_is_killed,
    execs::hook_06_exec_collects_both_streams,
    execs::logs_have_both_streams_and_can_be_rotated,
    lifecycle::a_running_container_can_be_removed,
    lifecycle::names_are_unique,
    lifecycle::nothing_is_left_of_a_refused_request,
    lifecycle::pod_09_a_missing_command_is_a_start_error,
    lifecycle::pod_09_exit_codes_and_reasons,
    lifecycle::removing_a_pod_ends_its_containers,
    lifecycle::rtc_18_an_unknown_handler_is_refused,
    lifecycle::stopping_and_removing_again_is_no_error,
    lifecycle::stopping_escalates_to_sigkill,
    lifecycle::the_pods_stop_signal_is_used,
    listing::events_tell_of_every_change,
    listing::images_are_named_alike_everywhere,
    listing::lists_can_be_filtered,
    listing::messages_have_a_limit,
    listing::version_status_and_configuration,
    security::a_profile_of_the_node_is_loaded,
    security::capabilities_are_the_default_set,
    security::limits_are_set_and_changed,
    security::no_new_privileges_and_seccomp,
    security::paths_are_hidden_and_protected,
    security::privileged_needs_a_privileged_pod,
    security::too_much_memory_is_an_oom_kill,
    streams::a_lost_terminal_hangs_up,
    streams::a_terminal_has_the_clients_size,
    streams::attach_joins_the_main_process,
    streams::plain_http_is_refused,
    streams::pod_54_exec_over_websocket,
    streams::stdin_is_closed_by_halves,
}

on_embedded! { start_with_network:
    environment::host_ports_lead_into_the_pod,
    lifecycle::a_pod_lives_and_dies,
    listing::stats_count_what_runs,
    streams::ports_are_forwarded,
}

/// The same container, run by the engines that people have installed; one that is absent is skipped.
async fn on_engine(handler: &str, path: &str) {
    if !std::path::Path::new(path).exists() {
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

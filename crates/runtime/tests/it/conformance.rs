//! What every CRI runtime has to do, as functions over a client: run against the embedded runtime here, and
//! usable against any other one that has an image with the toolbox and `probe`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use sampan_cri::client::Client;
use sampan_cri::v1::{self, ContainerState};
use tonic::Status;

pub mod environment;
pub mod execs;
pub mod lifecycle;
pub mod listing;
pub mod security;
pub mod streams;

/// Every check, as `module::check`, by what its pods need: given to the macro of an engine, which makes tests of them.
macro_rules! every_check {
    ($engine:ident) => {
        $engine! {
            start:
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
                lifecycle::a_pod_that_is_gone_can_be_stopped,
                lifecycle::a_running_container_can_be_removed,
                lifecycle::names_are_unique,
                lifecycle::nothing_is_left_of_a_refused_request,
                lifecycle::pod_09_a_missing_command_is_a_start_error,
                lifecycle::pod_09_exit_codes_and_reasons,
                lifecycle::removing_a_pod_ends_its_containers,
                lifecycle::removing_a_stopped_pod_leaves_its_neighbours_alone,
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
                streams::stdin_is_closed_by_halves;
            start_with_network:
                environment::host_ports_lead_into_the_pod,
                lifecycle::a_pod_lives_and_dies,
                listing::stats_count_what_runs,
                streams::ports_are_forwarded;
        }
    };
}
pub(crate) use every_check;

/// A runtime to test.
pub struct Target {
    pub client: Client,
    pub image: String,
    /// For pods' log directories.
    pub logs: PathBuf,
    /// Parent of everything; one of this test only.
    pub cgroup_parent: String,
    /// Pods have addresses.
    pub has_network: bool,
    /// The runtime handler of every pod.
    pub handler: String,
}

pub type Check = Result<(), Status>;

impl Target {
    /// A pod configuration with a name of its own.
    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let uid = format!("{name}-{:08x}", rand::random::<u32>());
        v1::PodSandboxConfig {
            log_directory: self.logs.join(&uid).display().to_string(),
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid,
                namespace: "conformance".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            labels: labels(&[("pod", name)]),
            annotations: labels(&[("note", "as it was")]),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A container configuration that runs this command.
    pub fn container(&self, name: &str, command: &[&str]) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}/0.log"),
            labels: labels(&[("container", name)]),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String, Status> {
        self.run_pod_with(config, &self.handler).await
    }

    pub async fn run_pod_with(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String, Status> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        Ok(self.client.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub async fn create(
        &self,
        pod: &str,
        config: v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.client.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    pub async fn start(&self, container: &str) -> Check {
        let request = v1::StartContainerRequest { container_id: container.to_owned() };
        self.client.runtime.clone().start_container(request).await.map(drop)
    }

    /// Creates and starts.
    pub async fn run(
        &self,
        pod: &str,
        config: v1::ContainerConfig,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        let id = self.create(pod, config, sandbox).await?;
        self.start(&id).await?;
        Ok(id)
    }

    pub async fn stop(&self, container: &str, timeout: i64) -> Check {
        let request = v1::StopContainerRequest { container_id: container.to_owned(), timeout };
        self.client.runtime.clone().stop_container(request).await.map(drop)
    }

    pub async fn remove(&self, container: &str) -> Check {
        let request = v1::RemoveContainerRequest { container_id: container.to_owned() };
        self.client.runtime.clone().remove_container(request).await.map(drop)
    }

    pub async fn stop_pod(&self, pod: &str) -> Check {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        self.client.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    pub async fn remove_pod(&self, pod: &str) -> Check {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        self.client.runtime.clone().remove_pod_sandbox(request).await.map(drop)
    }

    pub async fn status(&self, container: &str) -> Result<v1::ContainerStatus, Status> {
        let request = v1::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let answer = self.client.runtime.clone().container_status(request).await?.into_inner();
        Ok(answer.status.unwrap())
    }

    pub async fn pod_status(&self, pod: &str) -> Result<v1::PodSandboxStatus, Status> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: false };
        let answer = self.client.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        Ok(answer.status.unwrap())
    }

    /// Waits until a container has ended.
    pub async fn ended(&self, container: &str) -> Result<v1::ContainerStatus, Status> {
        for _ in 0..1000 {
            let status = self.status(container).await?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("container {container} does not end");
    }

    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<v1::ExecSyncResponse, Status> {
        let request = v1::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 20,
        };
        Ok(self.client.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// The stdout of a command that has to succeed.
    pub async fn output(&self, container: &str, command: &[&str]) -> Result<String, Status> {
        let answer = self.exec(container, command).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(answer.exit_code, 0, "{command:?}: {} {}", text(&answer.stdout), text(&answer.stderr));
        Ok(text(&answer.stdout))
    }

    /// The lines of a container's log: stream and text. Waits until there are `count`.
    pub async fn log(&self, container: &str, count: usize) -> Result<Vec<(String, String)>, Status> {
        let path = self.status(container).await?.log_path;
        for _ in 0..250 {
            let lines = read_log(&path);
            if lines.len() >= count {
                return Ok(lines);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} has {:?}", std::fs::read_to_string(&path));
    }

    /// A pod with one container that sleeps; most checks look around in it.
    pub async fn sleeper(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::PodSandboxConfig, &mut v1::ContainerConfig),
    ) -> Result<(String, String), Status> {
        let mut pod = self.pod(name);
        let mut container = self.container("main", &["sleep", "3600"]);
        change(&mut pod, &mut container);
        let sandbox = self.run_pod(&pod).await?;
        let id = self.run(&sandbox, container, &pod).await?;
        Ok((sandbox, id))
    }

    pub async fn remove_everything(&self) {
        let list = self.client.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
        for pod in list.unwrap().into_inner().items {
            self.remove_pod(&pod.id).await.unwrap();
        }
    }
}

/// `<time> <stream> <F or P> <text>`.
pub fn read_log(path: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let parse = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let time = parts.next().unwrap_or_default();
        assert!(time.contains('T'), "{line:?} has no time");
        let stream = parts.next().unwrap_or_default().to_owned();
        assert!(matches!(parts.next(), Some("F" | "P")), "{line:?} has no tag");
        (stream, parts.next().unwrap_or_default().to_owned())
    };
    text.lines().map(parse).collect()
}

pub fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The security context of a container configuration.
pub fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

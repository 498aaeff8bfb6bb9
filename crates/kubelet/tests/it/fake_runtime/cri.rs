//! What the kubelet sees of the runtime in which nothing runs: the CRI.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use sampan_cri::progress::WatchResponse;
use sampan_cri::v1;
use sampan_kubelet::cri::ContainerRuntime;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Status;

use super::{FakeRuntime, Killed, Script};

fn matches(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn version(&self) -> Result<v1::VersionResponse, Status> {
        Ok(v1::VersionResponse {
            runtime_name: "fake".into(),
            runtime_version: "1.0".into(),
            ..Default::default()
        })
    }

    async fn status(&self) -> Result<v1::StatusResponse, Status> {
        let condition =
            |name: &str| v1::RuntimeCondition { r#type: name.into(), status: true, ..Default::default() };
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
            }),
            runtime_handlers: (self.inner.lock().unwrap().handlers.iter())
                .map(|name| v1::RuntimeHandler { name: name.clone(), ..Default::default() })
                .collect(),
            ..Default::default()
        })
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, Status> {
        Err(Status::unimplemented("RuntimeConfig"))
    }

    async fn update_pod_cidr(&self, _: String) -> Result<(), Status> {
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, _: String) -> Result<String, Status> {
        let mut inner = self.inner.lock().unwrap();
        if let Some(error) = inner.sandbox_errors.pop_front() {
            return Err(error);
        }
        inner.next += 1;
        let id = format!("sandbox{}", inner.next);
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: v1::PodSandboxState::SandboxReady as i32,
            created_at: self.nanos() + i64::from(inner.next),
            network: Some(v1::PodSandboxNetworkStatus {
                ip: inner.pod_ip.clone().unwrap_or_else(|| format!("10.0.0.{}", inner.next)),
                ..Default::default()
            }),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        inner.sandboxes.insert(id.clone(), status);
        drop(inner);
        self.note("run sandbox".into());
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        let containers: Vec<String> = {
            let mut inner = self.inner.lock().unwrap();
            if let Some(sandbox) = inner.sandboxes.get_mut(id) {
                sandbox.state = v1::PodSandboxState::SandboxNotready as i32;
            }
            inner.containers.iter().filter(|(_, (_, s, _))| s == id).map(|(id, _)| id.clone()).collect()
        };
        for container in containers {
            self.end(&container, 137);
        }
        self.note("stop sandbox".into());
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Status> {
        self.inner.lock().unwrap().sandboxes.remove(id);
        self.note("remove sandbox".into());
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Status> {
        self.inner.lock().unwrap().sandboxes.get(id).cloned().ok_or_else(|| Status::not_found("sandbox"))
    }

    async fn list_pod_sandboxes(&self, filter: v1::PodSandboxFilter) -> Result<Vec<v1::PodSandbox>, Status> {
        let inner = self.inner.lock().unwrap();
        Ok(inner
            .sandboxes
            .values()
            .filter(|sandbox| matches(&sandbox.labels, &filter.label_selector))
            .map(|sandbox| v1::PodSandbox {
                id: sandbox.id.clone(),
                state: sandbox.state,
                labels: sandbox.labels.clone(),
                annotations: sandbox.annotations.clone(),
                created_at: sandbox.created_at,
                ..Default::default()
            })
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        let mut inner = self.inner.lock().unwrap();
        inner.next += 1;
        let id = format!("container{}", inner.next);
        let name = config.metadata.as_ref().unwrap().name.clone();
        let scripts = inner.scripts.entry(name.clone()).or_default();
        let script = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().copied() };
        let log = self.log_dir.join(sandbox_config.log_directory).join(&config.log_path);
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "").unwrap();
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: v1::ContainerState::ContainerCreated as i32,
            created_at: self.nanos() + i64::from(inner.next),
            image: config.image.clone(),
            image_ref: config.image.unwrap_or_default().image,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path: log.to_string_lossy().into_owned(),
            ..Default::default()
        };
        let script = script.unwrap_or(Script::Runs(0));
        inner.containers.insert(id.clone(), (status, sandbox.to_owned(), script));
        drop(inner);
        self.note(format!("create {name}"));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Status> {
        let (name, script) = {
            let mut inner = self.inner.lock().unwrap();
            let (status, _, script) =
                inner.containers.get_mut(id).ok_or_else(|| Status::not_found("container"))?;
            let failed = matches!(script, Script::FailsToStart);
            status.started_at = self.nanos();
            status.state = if failed {
                status.finished_at = self.nanos();
                status.exit_code = 128;
                status.reason = "StartError".into();
                v1::ContainerState::ContainerExited as i32
            } else {
                v1::ContainerState::ContainerRunning as i32
            };
            (status.metadata.as_ref().unwrap().name.clone(), *script)
        };
        self.note(format!("start {name}"));
        match script {
            Script::FailsToStart => {
                return Err(Status::unknown("exec: \"nope\": executable file not found in $PATH"));
            }
            Script::Ends(after, code) => {
                let this = self.clone();
                let id = id.to_owned();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    this.end(&id, code);
                });
            }
            _ => {}
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<(), Status> {
        let (name, script) = {
            let inner = self.inner.lock().unwrap();
            let (status, _, script) =
                inner.containers.get(id).ok_or_else(|| Status::not_found("container"))?;
            (status.metadata.as_ref().unwrap().name.clone(), *script)
        };
        self.note(format!("stop {name} {timeout_seconds}"));
        match script {
            Script::Runs(code) => self.end(id, code),
            Script::Unkillable(until) if self.now() < until => {
                return Err(Status::deadline_exceeded("an exit event was not seen"));
            }
            Script::Unkillable(_) => self.end(id, 137),
            _ => {
                tokio::time::sleep(Duration::from_secs(u64::try_from(timeout_seconds).unwrap_or(0))).await;
                self.end(id, 137);
            }
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), Status> {
        self.inner.lock().unwrap().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Status> {
        let inner = self.inner.lock().unwrap();
        inner
            .containers
            .get(id)
            .map(|(status, _, _)| status.clone())
            .ok_or_else(|| Status::not_found("container"))
    }

    async fn list_containers(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>, Status> {
        let inner = self.inner.lock().unwrap();
        Ok(inner
            .containers
            .values()
            .filter(|(status, _, _)| matches(&status.labels, &filter.label_selector))
            .map(|(status, sandbox, _)| v1::Container {
                id: status.id.clone(),
                pod_sandbox_id: sandbox.clone(),
                state: status.state,
                image: status.image.clone(),
                image_ref: status.image_ref.clone(),
                labels: status.labels.clone(),
                annotations: status.annotations.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        seconds: i64,
    ) -> Result<v1::ExecSyncResponse, Status> {
        let program = command.first().cloned().unwrap_or_default();
        let (exit_code, takes) = self.inner.lock().unwrap().exec.get(&program).copied().unwrap_or_default();
        self.note(format!("exec {program}"));
        if program == "badcommand-unstarted" {
            return Err(Status::unknown(
                "failed to exec in container: failed to start exec: exec: \"badcommand\": executable file not found in $PATH",
            ));
        }
        let mut killed = Killed { runtime: self.clone(), program: program.clone(), ended: false };
        let limit =
            Duration::from_secs(if seconds > 0 { seconds.unsigned_abs() } else { u64::from(u32::MAX) });
        let ended = async {
            while self.is_running(id) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(takes) => {}
            () = ended => {
                killed.ended = true;
                return Ok(v1::ExecSyncResponse { exit_code: 137, ..Default::default() });
            }
            () = tokio::time::sleep(limit) => {
                return Err(Status::with_details(tonic::Code::DeadlineExceeded, "timeout", "so far\n".into()));
            }
        }
        killed.ended = true;
        Ok(v1::ExecSyncResponse { exit_code, stdout: b"secret output".to_vec(), ..Default::default() })
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String, Status> {
        self.note(format!("exec stream {:?} tty={} stderr={}", request.cmd, request.tty, request.stderr));
        let url = self.inner.lock().unwrap().streaming_url.clone();
        url.ok_or_else(|| Status::unimplemented("exec"))
    }

    async fn attach(&self, _: v1::AttachRequest) -> Result<String, Status> {
        Err(Status::unimplemented("attach"))
    }

    async fn port_forward(&self, _: v1::PortForwardRequest) -> Result<String, Status> {
        Err(Status::unimplemented("port forward"))
    }

    async fn reopen_container_log(&self, _: &str) -> Result<(), Status> {
        Ok(())
    }

    async fn container_events(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::ContainerEventResponse, Status>>, Status> {
        let events = BroadcastStream::new(self.events.subscribe());
        Ok(events.filter_map(|event| async move { event.ok().map(Ok) }).boxed())
    }

    async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Status> {
        let inner = self.inner.lock().unwrap();
        let used = |(status, _, _): &(v1::ContainerStatus, String, Script)| {
            let value = inner.memory.get(&status.metadata.as_ref()?.name).copied().unwrap_or(1 << 20);
            let [usage_bytes, working_set_bytes] = [Some(v1::UInt64Value { value }); 2];
            Some(v1::ContainerStats {
                attributes: Some(v1::ContainerAttributes { id: status.id.clone(), ..Default::default() }),
                memory: Some(v1::MemoryUsage { usage_bytes, working_set_bytes, ..Default::default() }),
                ..Default::default()
            })
        };
        Ok(inner.containers.values().filter_map(used).collect())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), Status> {
        let name = {
            let inner = self.inner.lock().unwrap();
            if let Some(error) = &inner.update_error {
                return Err(error.clone());
            }
            let (status, _, _) = inner.containers.get(id).ok_or_else(|| Status::not_found("container"))?;
            status.metadata.as_ref().unwrap().name.clone()
        };
        let (quota, memory) = (resources.cpu_quota, resources.memory_limit_in_bytes >> 20);
        self.note(format!("update {name} quota={quota} memory={memory}Mi"));
        Ok(())
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>, Status> {
        let image = |id: &String| v1::Image { id: id.clone(), size: 7, ..Default::default() };
        Ok(self.inner.lock().unwrap().images.iter().map(image).collect())
    }

    async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, Status> {
        let inner = self.inner.lock().unwrap();
        if let Some(status) = &inner.image_status_error {
            return Err(status.clone());
        }
        let known = inner.images.contains(&image.image);
        Ok(known.then(|| v1::Image { id: image.image, size: 7, ..Default::default() }))
    }

    async fn mirrors(&self, _: &str) -> Result<Vec<String>, Status> {
        Ok(self.inner.lock().unwrap().mirrors.clone())
    }

    async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        mirrors: Vec<sampan_cri::progress::MirrorLogin>,
        _: v1::PodSandboxConfig,
    ) -> Result<String, Status> {
        self.note(format!("pull {}", image.image));
        let auth = auth.unwrap_or_default();
        let takes = {
            let mut inner = self.inner.lock().unwrap();
            inner.logins.push(format!("{}:{}", auth.username, auth.password));
            let shown = mirrors.iter().map(|at| format!("{} {}:{}", at.host, at.username, at.password));
            inner.mirror_logins = shown.collect();
            inner.pull_takes
        };
        tokio::time::sleep(takes).await;
        let mut inner = self.inner.lock().unwrap();
        if let Some((user, error)) = &inner.private
            && *user != auth.username
        {
            return Err(error.clone());
        }
        inner.pulls.pop_front().unwrap_or(Ok(()))?;
        if !inner.images.contains(&image.image) {
            inner.images.push(image.image.clone());
        }
        Ok(image.image)
    }

    async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), Status> {
        self.note(format!("remove image {}", image.image));
        self.inner.lock().unwrap().images.retain(|known| *known != image.image);
        Ok(())
    }

    async fn watch_pull(&self, _: &str) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let states = self.inner.lock().unwrap().progress.clone();
        let states = futures::stream::iter(states.into_iter().map(Ok)).then(|state| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            state
        });
        Ok(states.boxed())
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Status> {
        let Some(mountpoint) = self.inner.lock().unwrap().image_disk.clone() else {
            return Ok(v1::ImageFsInfoResponse::default());
        };
        let fs_id = v1::FilesystemIdentifier { mountpoint };
        let usage = v1::FilesystemUsage { fs_id: Some(fs_id), ..Default::default() };
        Ok(v1::ImageFsInfoResponse { image_filesystems: vec![usage], ..Default::default() })
    }
}

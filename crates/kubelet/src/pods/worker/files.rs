//! The files of a pod's containers: the hosts file, the links to their logs, and what is left of their old runs.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::PodWorker;
use crate::generate::{hostname, hosts};
use crate::pods::runtime_pod::State;
use crate::volumes::container_mounts;
use crate::{hooks, log_paths, log_rotation, pod_ref};

impl PodWorker {
    /// Writes the pod's hosts file.
    pub(super) fn hosts_file(&self) -> Result<PathBuf, String> {
        let spec = pod_ref::spec(&self.pod);
        let aliases = spec.host_aliases.as_deref().unwrap_or_default();
        let content = if pod_ref::is_host_network(&self.pod) {
            hosts::host_network_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
        } else {
            let names = hostname::host_name(&self.pod, &self.ctx.config.cluster_domain)?;
            let ips = self.runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
            hosts::pod_hosts(&ips, &names.hostname, &names.domain, aliases)
        };
        let dir = self.ctx.pod_dir(&self.uid);
        let file = dir.join("etc-hosts");
        // Containers of the pod may have added lines: an existing file is only written for a new address.
        let address = self.runtime.ready_sandbox().and_then(|sandbox| sandbox.ips.first());
        let address_known = match address {
            Some(ip) => hosts::has_address(&file, ip),
            None => file.exists(),
        };
        if !address_known {
            std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::write(&file, content))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(file)
    }

    /// `<container_log_dir>/<pod>_<ns>_<container>-<id>.log`, which log collectors read.
    pub(super) fn link_log(&self, container: &Container, id: &str, restart_count: u32) {
        let Some(dir) = &self.ctx.config.container_log_dir else { return };
        let logs = log_paths::of_pod(&self.ctx.config.log_dir, &self.pod);
        let target = logs.join(log_paths::in_pod(&container.name, restart_count));
        let link = dir.join(log_paths::link(&self.pod, &container.name, id));
        let linked = std::fs::create_dir_all(dir).and_then(|()| std::os::unix::fs::symlink(target, &link));
        if let Err(error) = linked {
            tracing::debug!(%error, link = %link.display(), "log link");
        }
    }

    /// Keeps one ended run per container, for `logs --previous`; older ones go with their logs.
    pub(super) async fn remove_old_runs(&mut self, name: &str) {
        let old: Vec<_> = self
            .runtime
            .containers
            .iter()
            .filter(|run| run.name == name && run.state == State::Exited)
            .skip(1)
            .cloned()
            .collect();
        for run in old {
            if self.ctx.config.cri.remove_container(&run.id).await.is_ok() {
                let log = Path::new(&run.log_path);
                log_rotation::remove_logs(log);
                container_mounts::remove_message_file(&self.ctx.pod_dir(&self.uid), name, run.restart_count);
                if let Some(logs) = log.parent() {
                    hooks::log::remove(logs, run.restart_count);
                }
                if let Some(dir) = &self.ctx.config.container_log_dir {
                    let link = log_paths::link(&self.pod, name, &run.id);
                    let _ = std::fs::remove_file(dir.join(link));
                }
            }
        }
        // Nor is anything remembered of runs that nobody knows.
        let knows = |id: &str| self.runtime.containers.iter().any(|run| run.id == id);
        self.announced_kills.retain(|id| knows(id));
        self.pre_stop_done.retain(knows);
    }
}

//! What outlives the daemon: one JSON file per sandbox and container below `<data-dir>/runtime`.
//!
//! Files appear by rename, so a killed daemon never leaves half a file. They are not synced to the disk on
//! the way to a running container: after a crash of the machine no container runs any more, and a record that
//! did not make it is the garbage of a sandbox that does not exist either. What must not be lost, how a
//! container ended, is synced by the shim (`exit.json` beside the container's record), and the record itself once
//! it says so.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sampan_cri::v1;
use sampan_shim::protocol::{ExitRecord, OciRuntime, exit_path};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The first record of a container, as it was created: a second chance when the current one cannot be read.
const ORIGIN: &str = "origin.json";

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SandboxState {
    /// RunPodSandbox is under way; moves on to `Ready`, or the record goes away. Found at start it is garbage.
    Creating,
    /// Namespaces and network stand; moves on when it is stopped or its shim dies.
    Ready,
    /// Only the record is left; goes away by RemovePodSandbox.
    NotReady,
}

/// A sandbox on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) config: v1::PodSandboxConfig,
    pub(crate) runtime_handler: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    pub(crate) state: SandboxState,
    /// The pinned namespaces.
    pub(crate) namespaces: sampan_shim::protocol::Sandbox,
    pub(crate) ips: Vec<IpAddr>,
    /// Parent of the containers' cgroups, absolute.
    pub(crate) cgroup_parent: String,
    /// Those of its directories that we made, so we remove them.
    #[serde(default)]
    pub(crate) own_cgroups: Vec<PathBuf>,
    /// What runs all containers of the pod, whatever the table of handlers says later (RTC-17). Absent in records
    /// of versions that did not write it.
    #[serde(default)]
    pub(crate) oci: Option<OciRuntime>,
    /// Which of the pod's annotations its containers get.
    #[serde(default)]
    pub(crate) passed_annotations: Vec<String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ContainerState {
    /// Its file system and specification stand; moves on by StartContainer.
    #[default]
    Created,
    /// Its process runs; moves on when that ends.
    Running,
    /// Ended, or could not start; goes away by RemoveContainer.
    Exited,
}

/// How a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) state: ContainerState,
    /// On the host; 0 when there is none.
    pub(crate) pid: i32,
    /// Nanoseconds since the epoch; 0 when it has not happened.
    pub(crate) started_at: i64,
    /// See `started_at`.
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether it has had its stop signal, which is not sent twice.
    pub(crate) stop_signalled: bool,
}

/// A container on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) config: v1::ContainerConfig,
    /// `Image.id`.
    pub(crate) image_id: String,
    /// A name with a digest (IMG-86).
    pub(crate) image_ref: String,
    pub(crate) created_at: i64,
    pub(crate) user: v1::LinuxContainerUser,
    /// A number of the kernel.
    pub(crate) stop_signal: i32,
    /// The container's cgroup, absolute.
    pub(crate) cgroup: String,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) runtime_handler: String,
    /// As in the sandbox's record.
    #[serde(default)]
    pub(crate) oci: Option<OciRuntime>,
    /// Image volumes: index in `config.mounts`.
    #[serde(default)]
    pub(crate) image_mounts: Vec<usize>,
    pub(crate) status: ContainerStatus,
}

/// The directory of the records.
#[derive(Clone, Debug)]
pub(crate) struct State {
    sandboxes: PathBuf,
    containers: PathBuf,
}

impl State {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let state = Self { sandboxes: dir.join("sandboxes"), containers: dir.join("containers") };
        for path in [&state.sandboxes, &state.containers] {
            fs::create_dir_all(path).map_err(|source| Error::Directory {
                operation: "create",
                path: path.clone(),
                source,
            })?;
        }
        Ok(state)
    }

    /// The directory in which shims keep `<container>/exit.json`.
    pub(crate) fn exits(&self) -> &Path {
        &self.containers
    }

    pub(crate) fn save_sandbox(&self, record: &SandboxRecord) -> io::Result<()> {
        write(&self.sandboxes.join(format!("{}.json", record.id)), record)
    }

    pub(crate) fn remove_sandbox(&self, id: &str) {
        let _ = fs::remove_file(self.sandboxes.join(format!("{id}.json")));
    }

    pub(crate) fn save_container(&self, record: &ContainerRecord) -> io::Result<()> {
        let dir = self.containers.join(&record.id);
        let first = match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            made => made.is_ok(),
        };
        write(&dir.join("container.json"), record)?;
        if first {
            // Each later record is another file. Without the link there is one chance less, and nothing else.
            let _ = fs::hard_link(dir.join("container.json"), dir.join(ORIGIN));
        }
        Ok(())
    }

    pub(crate) fn remove_container(&self, id: &str) {
        let _ = fs::remove_dir_all(self.containers.join(id));
    }

    /// How a container ended, as its shim recorded it.
    pub(crate) fn exit(&self, id: &str) -> Option<ExitRecord> {
        serde_json::from_slice(&fs::read(exit_path(&self.containers, id)).ok()?).ok()
    }

    /// Every sandbox on disk; what cannot be read is removed.
    pub(crate) fn sandboxes(&self) -> Vec<SandboxRecord> {
        entries(&self.sandboxes)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| {
                read(&path).or_else(|| {
                    tracing::warn!(path = %path.display(), "dropping a sandbox record that cannot be read");
                    let _ = fs::remove_file(&path);
                    None
                })
            })
            .collect()
    }

    /// Brings a container's record to the disk. Blocks for as long as that takes. It is for one that has ended: were
    /// its record lost with the machine's power, a container that is to run once would run again.
    pub(crate) fn sync_container(&self, id: &str) -> io::Result<()> {
        let dir = self.containers.join(id);
        fs::File::open(dir.join("container.json"))?.sync_data()?;
        fs::File::open(dir)?.sync_all()
    }

    /// Every container on disk. One whose record cannot be read is what it was when it was created; if its shim has
    /// recorded an end it counts as running, and the takeover finds that end. What nothing is known of is removed.
    pub(crate) fn containers(&self) -> Vec<ContainerRecord> {
        entries(&self.containers)
            .into_iter()
            .filter_map(|dir| {
                read(&dir.join("container.json")).or_else(|| {
                    let id = dir.file_name().unwrap_or_default().to_string_lossy();
                    let (path, exit) = (dir.display(), self.exit(&id));
                    if let Some(mut record) = read::<ContainerRecord>(&dir.join(ORIGIN)) {
                        tracing::warn!(%path, "the record of a container cannot be read; its first one can");
                        if exit.is_some() {
                            record.status.state = ContainerState::Running;
                            record.status.started_at = record.created_at;
                        }
                        return Some(record);
                    }
                    if let Some(exit) = exit {
                        tracing::error!(%path, exit.code, exit.finished_at, "the record of a container that has ended cannot be read; its exit is kept");
                        return None;
                    }
                    tracing::warn!(%path, "dropping a container record that cannot be read");
                    let _ = fs::remove_dir_all(&dir);
                    None
                })
            })
            .collect()
    }
}

/// The paths in a directory, without temporary files.
pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "tmp"))
        .collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a file that is there whole or as it was.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_32_a_status_that_does_not_speak_of_the_stop_signal_is_read() {
        let mut status: ContainerStatus =
            serde_json::from_str(r#"{"state": "Running", "pid": 7, "startedAt": 1}"#).unwrap();
        assert_eq!((status.pid, status.stop_signalled), (7, false));
        status.stop_signalled = true;
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<ContainerStatus>(&text).unwrap(), status);
    }
}

//! A pod's volumes: made before its containers, kept up to date while it lives ([`upkeep`]), removed with it.
//!
//! They are in `<data>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`; a `hostPath` volume is where it says.

mod atomic_writer;
pub(crate) mod container_mounts;
mod empty_dir;
pub(crate) mod env_file;
mod host_path;
pub(crate) mod kernel_mounts;
mod ownership;
mod payload;
mod removal;
mod sub_path;
mod token;
mod unsupported;
pub(crate) mod upkeep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::sync::{Notify, Semaphore};

use crate::context::NodeContext;
use crate::pod_ref;
use atomic_writer::Files;
use payload::Sources;

/// One pod's volumes as far as they are set up.
#[derive(Default)]
pub(crate) struct PodVolumes {
    /// Volume name to its directory (or file) on the host.
    paths: BTreeMap<String, PathBuf>,
    sources: Sources,
}

/// A volume that could not be set up.
#[derive(Debug)]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    message: String,
}

impl VolumeError {
    /// The text of the `FailedMount` event (ENV-48).
    pub(crate) fn event(&self) -> String {
        format!("MountVolume.SetUp failed for volume {:?} : {}", self.volume, self.message)
    }
}

impl PodVolumes {
    /// Where a volume is on the host.
    pub(crate) fn path(&self, volume: &str) -> Option<&Path> {
        self.paths.get(volume).map(PathBuf::as_path)
    }

    /// Whether all volumes of the pod are there.
    pub(crate) fn complete(&self, pod: &Pod) -> bool {
        own_volumes(pod).all(|volume| self.paths.contains_key(&volume.name))
    }

    /// Sets up what is missing and brings the content of the others up to date.
    pub(crate) async fn sync(&mut self, ctx: &Arc<NodeContext>, pod: &Pod) -> Result<(), Vec<VolumeError>> {
        let mut errors = Vec::new();
        for volume in own_volumes(pod) {
            // What is the container's own is not looked at again: it may have done with it what it liked.
            if self.paths.contains_key(&volume.name) && !has_content(volume) {
                continue;
            }
            match set_up(ctx, pod, volume, &mut self.sources).await {
                Ok(path) => {
                    self.paths.insert(volume.name.clone(), path);
                }
                Err(message) => errors.push(VolumeError { volume: volume.name.clone(), message }),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Notified when an object changed that a volume shows, or waits for.
    fn news(&self) -> Arc<Notify> {
        self.sources.news()
    }

    /// How long the content is good without any news.
    fn good_for(&self, ctx: &NodeContext) -> Option<Duration> {
        let at = self.sources.next_renewal()?;
        Some(Duration::try_from(at.duration_since(ctx.config.clock.now())).unwrap_or_default())
    }
}

/// The volumes that the kubelet itself sets up; those that are images are the runtime's (IMG-87).
fn own_volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod_ref::spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_none())
}

/// Whether the API says what is in the volume, so that it may change.
fn has_content(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

async fn set_up(
    ctx: &Arc<NodeContext>,
    pod: &Pod,
    volume: &Volume,
    sources: &mut Sources,
) -> Result<PathBuf, String> {
    let plugin_dir = |plugin: &str| {
        ctx.pod_dir(pod_ref::uid(pod))
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(&volume.name)
    };
    let fs_group = pod_ref::spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
    let group = fs_group.and_then(|group| u32::try_from(group).ok());
    if let Some(host_path) = &volume.host_path {
        return host_path::check(&host_path.path, host_path.type_.as_deref().unwrap_or_default())
            .map(|()| PathBuf::from(&host_path.path));
    }
    if let Some(source) = &volume.empty_dir {
        let dir = plugin_dir("empty-dir");
        return empty_dir::set_up(ctx, pod, source, &dir, group).map(|()| dir);
    }
    let (plugin, in_memory) = match () {
        () if volume.config_map.is_some() => ("configmap", false),
        () if volume.secret.is_some() => ("secret", true),
        () if volume.projected.is_some() => ("projected", true),
        () if volume.downward_api.is_some() => ("downward-api", true),
        () => return Err(unsupported::volume(volume)),
    };
    let files = payload::of_volume(ctx, pod, volume, sources).await?;
    let dir = plugin_dir(plugin);
    let work = {
        let dir = dir.clone();
        move || write(&dir, &files, in_memory, group)
    };
    // Thousands of keys take a while.
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
    Ok(dir)
}

/// Makes the directory, on a file system in memory where it holds secrets, with these files in it. May be interrupted
/// at any point and is right after the next time.
fn write(dir: &Path, files: &Files, in_memory: bool, group: Option<u32>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mode = ownership::of_directory(0o777, group, true);
    std::fs::create_dir_all(dir).map_err(failed)?;
    if in_memory {
        kernel_mounts::mount_tmpfs(dir, None, mode, group)?;
    }
    ownership::set(dir, mode, group).map_err(failed)?;
    atomic_writer::write(dir, files, group).map_err(failed)?;
    Ok(())
}

/// Where directories are emptied: beside the tasks of the node, which a directory with a million files would hold up
/// (its lease, its probes), and few at a time, which a disk does as fast as many.
pub(crate) struct Removals(Semaphore);

impl Default for Removals {
    fn default() -> Self {
        Self(Semaphore::new(2))
    }
}

impl Removals {
    /// Unmounts and removes everything in `pod_dir`. What is in use stays and is reported.
    pub(crate) async fn tear_down(&self, pod_dir: PathBuf) -> Result<(), String> {
        self.run(move || {
            unmount(&pod_dir)?;
            removal::remove(&pod_dir).map_err(|error| format!("remove {}: {error}", pod_dir.display()))
        })
        .await
    }

    /// Unmounts everything of a pod and keeps the files, as a reboot does.
    pub(crate) async fn unmount(&self, pod_dir: PathBuf) -> Result<(), String> {
        self.run(move || unmount(&pod_dir)).await
    }

    /// Removes the directory of a pod's logs.
    pub(crate) async fn remove_logs(&self, dir: PathBuf) -> Result<(), String> {
        self.run(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("remove {}: {error}", dir.display()))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn run(&self, work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
        let _turn = self.0.acquire().await.expect("nobody closes it");
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
    }
}

fn unmount(pod_dir: &Path) -> Result<(), String> {
    let left = kernel_mounts::unmount_below(pod_dir)
        .map_err(|error| format!("the mounts of {}: {error}", pod_dir.display()))?;
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("still mounted: {}", left.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_removal_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let [pod, logs] = ["pod", "logs"].map(|name| dir.path().join(name));
        for dir in [&pod, &logs] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), "x").unwrap();
        }
        let removals = Removals::default();
        let mut torn_down = std::pin::pin!(removals.tear_down(pod.clone()));
        let mut removed = std::pin::pin!(removals.remove_logs(logs.clone()));
        // The first look at the future does none of the work.
        assert!(futures::poll!(&mut torn_down).is_pending() && futures::poll!(&mut removed).is_pending());
        torn_down.await.unwrap();
        removed.await.unwrap();
        assert!(!pod.exists() && !logs.exists());
        removals.remove_logs(logs).await.unwrap();
    }
}

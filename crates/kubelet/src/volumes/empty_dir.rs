//! `emptyDir`: a directory of the pod's own, on the node's disk or in memory (ENV-46). Its `sizeLimit` on disk is the
//! business of [`crate::eviction`].

use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use super::{kernel_mounts, ownership, removal};
use crate::context::NodeContext;
use crate::pod_ref;
use crate::quantities;

/// Everybody may write it.
const MODE: u32 = 0o777;

/// Makes it, unless it is there: then its content and modes are the containers' own.
pub(super) fn set_up(
    ctx: &NodeContext,
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    dir: &Path,
    group: Option<u32>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mode = ownership::of_directory(MODE, group, false);
    match source.medium.as_deref().unwrap_or_default() {
        "" => on_disk(dir, mode, group).map_err(failed),
        "Memory" => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            kernel_mounts::mount_tmpfs(dir, size(ctx, pod, source), mode, group)
        }
        medium => Err(format!(
            "an emptyDir volume of medium {medium:?} is not supported by this node: use \"\" (disk) or \"Memory\""
        )),
    }
}

/// It appears when it is as it has to be, so that a restart never finds half of it.
fn on_disk(dir: &Path, mode: u32, group: Option<u32>) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    // No volume's name begins with a dot.
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.with_file_name(format!(".{name}"));
    removal::remove(&new)?;
    std::fs::create_dir_all(&new)?;
    ownership::set(&new, mode, group)?;
    std::fs::rename(&new, dir)
}

/// The least of the volume's own limit, the pod's memory limit and what the node has for pods.
fn size(ctx: &NodeContext, pod: &Pod, source: &EmptyDirVolumeSource) -> Option<i64> {
    let own = source.size_limit.as_ref().and_then(|limit| quantities::value(&limit.0));
    let (resources, _) = crate::generate::resources::pod_resources(pod);
    let level = pod_ref::spec(pod).resources.as_ref().and_then(|level| level.limits.as_ref());
    let node = quantities::listed(Some(&ctx.allocatable), "memory").unwrap_or(ctx.memory_capacity);
    [own, quantities::listed(level, "memory"), Some(resources.memory_limit_in_bytes), Some(node)]
        .into_iter()
        .flatten()
        .filter(|limit| *limit > 0)
        .min()
}

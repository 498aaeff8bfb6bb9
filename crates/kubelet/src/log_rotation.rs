//! Keeps container logs from filling the disk: a log above its size is renamed, the runtime opens a new one,
//! and only so many old ones are kept.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sampan_cri::v1;

use crate::context::NodeContext;
use crate::log_paths;

/// Rotates logs until it is aborted.
pub(crate) async fn run(ctx: Arc<NodeContext>) {
    let mut ticks = tokio::time::interval(ctx.config.container_log_monitor_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
        let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
        let Ok(containers) = ctx.config.cri.list_containers(filter).await else { continue };
        for container in containers {
            let Some(log) = log_paths::of_listed(&ctx.config.log_dir, &container) else { continue };
            let size = match std::fs::metadata(&log) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == ErrorKind::NotFound && !rotated_logs(&log).is_empty() => {
                    // Renamed, and then we died: the container writes to the old one until it is told.
                    let reopened = ctx.config.cri.reopen_container_log(&container.id).await;
                    tracing::info!(log = %log.display(), ok = reopened.is_ok(), "half a rotation finished");
                    continue;
                }
                Err(_) => continue,
            };
            if size < ctx.config.container_log_max_size {
                continue;
            }
            if let Err(error) = rotate(&ctx, &container.id, &log).await {
                tracing::warn!(log = %log.display(), error, "log not rotated");
            }
        }
    }
}

async fn rotate(ctx: &NodeContext, id: &str, log: &Path) -> Result<(), String> {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut rotated = log.as_os_str().to_owned();
    rotated.push(format!(".{stamp}"));
    std::fs::rename(log, &rotated).map_err(|error| error.to_string())?;
    if let Err(status) = ctx.config.cri.reopen_container_log(id).await {
        // The container still writes to the renamed file: it gets its name back, so that nothing is lost. Unless there
        // is a new one: then it was reopened, and only the answer got lost.
        let _ = renameat_with(CWD, &rotated, CWD, log, RenameFlags::NOREPLACE);
        return Err(status.to_string());
    }
    let old = rotated_logs(log);
    let keep = ctx.config.container_log_max_files.saturating_sub(1).max(1);
    for file in old.iter().take(old.len().saturating_sub(keep)) {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// The rotated files of `log`, the oldest first.
pub(crate) fn rotated_logs(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    files
}

/// Removes the logs of a container's runs before `run`.
pub(crate) fn remove_runs_before(container_logs: &Path, run: u32) {
    for entry in std::fs::read_dir(container_logs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
        if number.is_some_and(|number| number < run) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Removes a log and its rotated files.
pub(crate) fn remove_logs(log: &Path) {
    for file in rotated_logs(log) {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_file(log);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rotated_files_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.20260102-000000", "0.log.20260101-000000", "10.log"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = rotated_logs(&log)
            .into_iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["0.log.20260101-000000", "0.log.20260102-000000"]);
        remove_logs(&log);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

//! Starting a shim, and clearing up after one that died.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::Error;

/// How to start a shim.
#[derive(Clone, Debug)]
pub struct SpawnOptions {
    /// The sandbox's id.
    pub id: String,
    /// Our own binary.
    pub executable: PathBuf,
    /// Arguments in front of the shim's own; `["shim"]` for the real binary.
    pub args: Vec<String>,
    /// The shim's directory (socket, namespaces, log); made when missing, mode 0700.
    pub dir: PathBuf,
    /// Where exits are recorded: `<state>/<container>/exit.json`.
    pub state: PathBuf,
    /// Cgroup directories (one per v1 hierarchy, or one of v2) that the shim joins; made when missing.
    pub cgroups: Vec<PathBuf>,
    /// The shim's oom score; raised when it may not go that low.
    pub oom_score_adj: Option<i32>,
}

impl SpawnOptions {
    /// The usual options: our own binary with `shim` as first argument.
    pub fn new(
        id: impl Into<String>,
        executable: impl Into<PathBuf>,
        dir: impl Into<PathBuf>,
        state: impl Into<PathBuf>,
    ) -> Self {
        Self {
            id: id.into(),
            executable: executable.into(),
            args: vec!["shim".into()],
            dir: dir.into(),
            state: state.into(),
            cgroups: Vec::new(),
            oom_score_adj: Some(-998),
        }
    }
}

/// Runs the executable; it binds its socket, forks itself into the background and ends: then it serves.
pub(super) async fn spawn(options: &SpawnOptions) -> Result<(), Error> {
    let mut command = Command::new(&options.executable);
    command
        .args(&options.args)
        .arg("--id")
        .arg(&options.id)
        .arg("--dir")
        .arg(&options.dir)
        .arg("--state")
        .arg(&options.state);
    for cgroup in &options.cgroups {
        command.arg("--cgroup").arg(cgroup);
    }
    if let Some(score) = options.oom_score_adj {
        command.arg(format!("--oom-score-adj={score}"));
    }
    let spawn_error = |source| Error::Spawn { id: options.id.clone(), source };
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // No directory: the C library's spawn knows it only from a shared library, and without that spawn the daemon
        // with all its memory would be forked. The shim goes to / by itself.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .await
        .map_err(spawn_error)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NotUp {
        id: options.id.clone(),
        message: format!("{} ({})", String::from_utf8_lossy(&output.stderr).trim(), output.status),
    })
}

/// Clears up after a shim that died without `shutdown`: unpins its namespaces and removes its directory.
/// Harmless when there is nothing. Blocking (a few system calls).
///
/// # Errors
/// When a mount or the directory cannot be removed.
pub fn remove_remains(dir: &Path) -> Result<(), Error> {
    crate::kernel::pins::remove(dir).map_err(|source| Error::Remains { path: dir.to_owned(), source })
}

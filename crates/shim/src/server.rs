//! The shim's own side: how its process comes up. The loop is in [`event_loop`].

mod arguments;
mod calls;
mod connection;
mod container;
mod cri_log;
mod event_loop;
mod exits;
mod jobs;
mod journal;
mod lifecycle;
mod sandbox;
mod stdio;
mod streams;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::Arguments;
use event_loop::Shim;

use crate::kernel::children;

/// The embedded OCI runtime: runs one command of runc's command line and gives its exit code. It is called in a fork
/// of the shim, which has one thread, and does there what `sampan oci` would do in a process of its own, without the
/// cost of executing the binary again.
pub type EmbeddedRuntime = fn(Vec<OsString>) -> u8;

/// Runs `sampan shim`. `args` are those after `shim`.
///
/// It returns in the process that was started, once a process in the background serves; there it
/// returns when that has shut down. Must be called before any thread exists.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>, embedded: EmbeddedRuntime) -> ExitCode {
    match run(args, embedded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // The daemon shows this text; in the background it goes to the shim's log.
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl IntoIterator<Item = OsString>, embedded: EmbeddedRuntime) -> Result<(), String> {
    let arguments = Arguments::parse(args)?;
    let dir = &arguments.dir;
    let during = |what: &str, path: &Path| {
        let what = format!("{what} {}", path.display());
        move |error: io::Error| format!("{what}: {error}")
    };
    let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(dir).map_err(during("make", dir))?;
    private(&arguments.state).map_err(during("make", &arguments.state))?;
    let _lock = lock(dir)?;
    let listener = listen(dir).map_err(during("listen at", dir))?;
    for cgroup in &arguments.cgroups {
        fs::create_dir_all(cgroup).map_err(during("make cgroup", cgroup))?;
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(during("join cgroup", cgroup))?;
    }
    if let Some(score) = arguments.oom_score_adj {
        // Lowering it may be refused (CAP_SYS_RESOURCE); the shim then lives with what it has.
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    let log_path = dir.join("shim.log");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(during("open", &log_path))?;
    if children::fork_parent().map_err(|error| format!("fork: {error}"))? {
        return Ok(());
    }
    into_background(log).map_err(|error| format!("go into the background: {error}"))?;
    let mut shim = Shim::new(arguments, listener, embedded).map_err(|error| format!("set up: {error}"))?;
    shim.run();
    Ok(())
}

/// One shim per directory: the lock lives as long as the process (and its fork) does.
fn lock(dir: &Path) -> Result<fs::File, String> {
    let path = dir.join("shim.lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("open {}: {error}", path.display()))?;
    file.try_lock().map_err(|_| format!("another shim lives in {}", dir.display()))?;
    Ok(file)
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    let path = dir.join("shim.sock");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short_path(dir, "shim.sock")?.1)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path below `dir` that fits into a socket address (108 bytes) however long `dir` is. It holds as
/// long as the returned descriptor is open.
fn short_path(dir: &Path, name: &str) -> io::Result<(fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let handle = fs::File::open(dir)?;
    let path = format!("/proc/{}/fd/{}/{name}", std::process::id(), handle.as_raw_fd());
    Ok((handle, PathBuf::from(path)))
}

fn into_background(log: fs::File) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&log)?;
    children::become_subreaper()
}

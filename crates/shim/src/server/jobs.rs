//! Calls of the OCI runtime: started, watched, ended when they hang, and their errors read.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::EmbeddedRuntime;
use super::event_loop::{Shim, Source};
use super::stdio::{ChildStdio, nonblocking, null};
use crate::kernel::children::{self, WaitStatus};
use crate::kernel::{embedded, runtime_view};
use crate::protocol::{Failure, FailureCode, OciRuntime};

/// Bytes of a runtime's log that are looked at for its error, the last ones.
const MAX_ERROR_TEXT: u64 = 64 << 10;
/// Bytes of its stderr that are kept for it, the last ones.
const MAX_STDERR: usize = 16 << 10;

/// More than a pipe holds, in reads of the shim's buffer.
const PIPE_READS: usize = 8;

/// What a call is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Create {
        container: String,
        process: u64,
    },
    Exec {
        process: u64,
    },
    Start {
        container: String,
    },
    Signal,
    Pause {
        container: String,
        paused: bool,
    },
    Update,
    Delete {
        container: String,
    },
    /// Clearing up after a create that failed; then the request is refused with this.
    Discard {
        failure: Failure,
    },
}

/// A call of the OCI runtime under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) purpose: Purpose,
    /// Who asked.
    pub(super) connection: u64,
    /// When it is killed for taking too long.
    pub(super) deadline: Instant,
    pub(super) timed_out: bool,
    pub(super) console: Option<Console>,
    pub(super) files: Files,
    program: PathBuf,
    verb: &'static str,
    limit: Duration,
    stderr: Option<Stderr>,
}

/// What a runtime says on stderr. It is read all the time: a runtime that says more than a pipe holds would wait for
/// its reader.
#[derive(Debug)]
struct Stderr {
    /// None once nobody can write any more.
    fd: Option<OwnedFd>,
    token: u64,
    kept: Vec<u8>,
}

impl Stderr {
    /// Reads once; whether there may be more.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(fd) = &self.fd else { return false };
        match rustix::io::read(fd, &mut *buffer) {
            Ok(count) if count > 0 => {
                self.kept.extend_from_slice(&buffer[..count]);
                let excess = self.kept.len().saturating_sub(MAX_STDERR);
                self.kept.drain(..excess);
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            _ => {
                self.fd = None;
                false
            }
        }
    }

    fn text(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.kept).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Where the runtime sends a terminal.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) listener: UnixListener,
    pub(super) token: u64,
    pub(super) process: u64,
    pub(super) stdin: bool,
}

/// A call's scratch files, removed with it.
#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
}

impl Files {
    pub(super) fn log(&self) -> PathBuf {
        self.base.with_extension("log")
    }
    pub(super) fn pid(&self) -> PathBuf {
        self.base.with_extension("pid")
    }
    pub(super) fn json(&self) -> PathBuf {
        self.base.with_extension("json")
    }
    pub(super) fn socket(&self) -> PathBuf {
        self.base.with_extension("pty")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [self.log(), self.pid(), self.json(), self.socket()] {
            let _ = fs::remove_file(path);
        }
    }
}

/// A call to be made.
pub(super) struct Call<'a> {
    pub(super) runtime: &'a OciRuntime,
    pub(super) verb: &'static str,
    pub(super) limit: Duration,
    pub(super) connection: u64,
    pub(super) files: Files,
    /// Where its arguments are added.
    pub(super) command: Command,
    pub(super) console: Option<Console>,
}

impl Job {
    /// Whether it leaves a new process behind.
    pub(super) fn makes_process(&self) -> bool {
        matches!(self.purpose, Purpose::Create { .. } | Purpose::Exec { .. } | Purpose::Delete { .. })
    }
}

impl Shim {
    /// Prepares `RUNTIME --root … --log … VERB`.
    pub(super) fn prepare<'a>(
        &mut self,
        runtime: &'a OciRuntime,
        verb: &'static str,
        limit: Duration,
        connection: u64,
    ) -> Call<'a> {
        let base = format!("shim.call-{}.x", self.key());
        let files = Files { base: self.arguments.dir.join(base) };
        let mut command = Command::new(&runtime.path);
        command
            .args(&runtime.args)
            .arg("--root")
            .arg(&runtime.root)
            .arg("--log")
            .arg(files.log())
            .arg("--log-format")
            .arg("json")
            .arg(verb);
        // A group of its own, so that a hanging one can be ended with its helpers.
        command.process_group(0).current_dir("/");
        runtime_view::prepare(&mut command, runtime.hide_unified, Some(self.open_files));
        Call { runtime, verb, limit, connection, files, command, console: None }
    }

    /// Opens the socket that the runtime sends the terminal over, and names it to the runtime.
    pub(super) fn open_console(&mut self, call: &mut Call<'_>, process: u64, stdin: bool) -> io::Result<()> {
        let name = call.files.socket();
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        // The directory may be deeper than a socket address can say; the runtime may follow a link to it.
        let handle = fs::File::open(&self.arguments.dir)?;
        let short = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        let token = self.token(Source::Console(0));
        call.command.arg("--console-socket").arg(call.files.socket());
        call.console = Some(Console { listener, token, process, stdin });
        Ok(())
    }

    /// Starts a call. Without `stdio` its stderr is kept for the error.
    pub(super) fn start_job(
        &mut self,
        mut call: Call<'_>,
        stdio: Option<ChildStdio>,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        let started = self.spawn(&mut call, stdio);
        let (pid, stderr) = started.map_err(|error| {
            if let Some(console) = &call.console {
                self.forget(console.token);
            }
            let path = call.runtime.path.display();
            Failure::new(FailureCode::Runtime, format!("run {path}: {error}"))
        })?;
        if let Some(console) = &call.console {
            self.retarget(console.token, Source::Console(pid));
            Self::watch(&self.epoll, &console.listener, console.token, false);
        }
        let stderr = stderr.map(|fd| {
            let token = self.token(Source::Errors(pid));
            Self::watch(&self.epoll, &fd, token, false);
            Stderr { fd: Some(fd), token, kept: Vec::new() }
        });
        self.jobs.insert(
            pid,
            Job {
                purpose,
                connection: call.connection,
                deadline: Instant::now() + call.limit,
                timed_out: false,
                console: call.console,
                files: call.files,
                program: call.runtime.path.clone(),
                verb: call.verb,
                limit: call.limit,
                stderr,
            },
        );
        Ok(())
    }

    fn spawn(
        &mut self,
        call: &mut Call<'_>,
        stdio: Option<ChildStdio>,
    ) -> io::Result<(i32, Option<OwnedFd>)> {
        let mut kept = None;
        let stdio = if let Some(stdio) = stdio {
            stdio
        } else {
            let (read, write) = io::pipe()?;
            let read = OwnedFd::from(read);
            nonblocking(&read)?;
            kept = Some(read);
            ChildStdio { stdin: null()?.into(), stdout: null()?.into(), stderr: write.into() }
        };
        // The ends given to the child must not stay open here: nobody would see the end of its output.
        if let Some(run) = self.embedded(call.runtime) {
            let arguments = call.command.get_args().skip(call.runtime.args.len());
            let arguments = arguments.map(OsStr::to_owned).collect();
            let pid = embedded::start([stdio.stdin, stdio.stdout, stdio.stderr], || run(arguments))?;
            return Ok((pid, kept));
        }
        let child = call.command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr).spawn()?;
        call.command = Command::new("/");
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok((pid, kept))
    }

    /// The embedded runtime, when that is meant: our own executable, as `oci`.
    fn embedded(&self, runtime: &OciRuntime) -> Option<EmbeddedRuntime> {
        let own = self.executable.as_ref() == Some(&runtime.path) && runtime.args == ["oci"];
        own.then_some(self.embedded_runtime)
    }

    /// A runtime says something on stderr.
    pub(super) fn on_errors(&mut self, pid: i32) {
        if let Some(stderr) = self.jobs.get_mut(&pid).and_then(|job| job.stderr.as_mut()) {
            stderr.read(&mut self.buffer);
        }
    }

    pub(super) fn expire_jobs(&mut self, now: Instant) {
        for (pid, job) in &mut self.jobs {
            if job.deadline <= now {
                job.timed_out = true;
                job.deadline = now + Duration::from_secs(1);
                let _ = children::signal(-pid, libc::SIGKILL);
                let _ = children::signal(*pid, libc::SIGKILL);
            }
        }
    }

    /// A call has ended: acts on it.
    pub(super) fn finish_job(&mut self, pid: i32, status: WaitStatus) {
        // The terminal may have been sent in the same breath.
        self.on_console(pid);
        let Some(mut job) = self.jobs.remove(&pid) else {
            return;
        };
        if let Some(console) = job.console.take() {
            self.forget(console.token);
        }
        if let Some(stderr) = &mut job.stderr {
            self.forget(stderr.token);
            // The last words; a helper that it left behind may go on talking.
            let mut left = PIPE_READS;
            while left > 0 && stderr.read(&mut self.buffer) {
                left -= 1;
            }
        }
        let result = if job.timed_out {
            let seconds = job.limit.as_secs_f32();
            Err(Failure::new(
                FailureCode::Timeout,
                format!(
                    "OCI runtime {} timed out: {} was killed after {seconds} s",
                    job.verb,
                    job.program.display()
                ),
            ))
        } else if status.code == 0 {
            Ok(())
        } else {
            Err(Failure::new(FailureCode::Runtime, self.error_text(&job, status)))
        };
        self.finish(job, result);
    }

    fn error_text(&mut self, job: &Job, status: WaitStatus) -> String {
        let said = last_error(&job.files.log())
            .or_else(|| job.stderr.as_ref().and_then(Stderr::text))
            .or_else(|| match job.purpose {
                // The container's stderr was the runtime's so far.
                Purpose::Create { process, .. } | Purpose::Exec { process } => {
                    let outputs = &self.processes.get(&process)?.outputs;
                    outputs[1].as_ref().and_then(|output| read_text(&output.fd))
                }
                _ => None,
            })
            .unwrap_or_else(|| match status.signal {
                0 => format!("exit status {}", status.code),
                signal => format!("ended by signal {signal}"),
            });
        format!("OCI runtime {} failed: {said}", job.verb)
    }
}

/// The message of the last error in a runtime's JSON log.
fn last_error(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(MAX_ERROR_TEXT);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_ERROR_TEXT).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // A first line without its beginning is no JSON.
    text.lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = entry.get("level")?.as_str()?;
        let message = entry.get("msg")?.as_str()?.trim();
        (["error", "fatal"].contains(&level) && !message.is_empty()).then(|| message.to_owned())
    })
}

/// What a pipe holds, as text.
fn read_text(fd: &OwnedFd) -> Option<String> {
    let mut buffer = vec![0; 16 << 10];
    let count = rustix::io::read(fd, &mut buffer[..]).ok()?;
    let text = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Writes a scratch file that only we can read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(log: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        fs::write(&path, log).unwrap();
        last_error(&path)
    }

    #[test]
    fn the_last_error_of_a_log_counts_however_long_the_log_is() {
        let error = |text: &str| format!("{{\"level\":\"error\",\"msg\":\"{text}\"}}\n");
        let info = "{\"level\":\"info\",\"msg\":\"läuft\"}\n";
        assert_eq!(said(b""), None);
        assert_eq!(said(info.as_bytes()), None);
        assert_eq!(said((error("first") + &error("last") + info).as_bytes()).as_deref(), Some("last"));
        // Wherever the cut falls, also within a character.
        for padding in 0..info.len() {
            let log = error("first") + &info.repeat(4000) + &error("last") + &"x".repeat(padding);
            assert!(log.len() as u64 > MAX_ERROR_TEXT);
            assert_eq!(said(log.as_bytes()).as_deref(), Some("last"));
        }
    }
}

//! The daemon's side of a shim: start one, find one again, ask it for things.
//!
//! [`Shim`] is a path and a few time limits; every call opens its own connection, so it is cheap to clone,
//! safe to use from many tasks, and needs no repair after an error. A call that is dropped in the middle
//! leaves the shim finishing what it began.

mod exec_sync;
mod runtime_command;
mod spawn;
mod stream;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::protocol::{
    Answer, CreateContainer, CreateSandbox, DeleteContainer, ExecProcess, ExitRecord, Failure, FailureCode,
    Request, Sandbox, ShimState, TerminalSize,
};

pub use exec_sync::{ExecSyncOptions, ExecSyncOutput};
pub use runtime_command::runtime_command;
pub use spawn::{SpawnOptions, remove_remains};
pub use stream::{AttachInput, AttachOutput, AttachStream, Events, Output};

/// How long an ordinary call may take (calls that run the OCI runtime take its limit and this).
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What can go wrong with a shim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The executable could not be run.
    #[error("start the shim of sandbox {id}")]
    Spawn {
        /// The sandbox.
        id: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The new process ended with an error before it served.
    #[error("the shim of sandbox {id} did not come up: {message}")]
    NotUp {
        /// The sandbox.
        id: String,
        /// What it said.
        message: String,
    },
    /// Nobody listens: the shim is gone.
    #[error("connect to the shim at {}", socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke in the middle of a call; whether the shim has done it is unknown: ask for its state.
    #[error("{call}: connection to the shim")]
    Connection {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The shim sent something that makes no sense.
    #[error("{call}: unexpected answer from the shim: {message}")]
    Protocol {
        /// The call.
        call: &'static str,
        /// What was wrong.
        message: String,
    },
    /// No answer in time.
    #[error("{call}: no answer from the shim within {seconds} s")]
    Timeout {
        /// The call.
        call: &'static str,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The shim said no; the text is the OCI runtime's when it failed.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// `exec_sync` took longer than its limit; the process was killed.
    #[error("command timed out after {seconds} s")]
    ExecTimeout {
        /// The limit, in seconds (rounded up).
        seconds: u64,
        /// What it had printed until then, up to the bound.
        stdout: Vec<u8>,
        /// Its standard error until then, up to the bound.
        stderr: Vec<u8>,
    },
    /// What a dead shim left could not be removed.
    #[error("remove what a shim left at {}", path.display())]
    Remains {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The code of a refusal by the shim.
    #[must_use]
    pub fn code(&self) -> Option<FailureCode> {
        match self {
            Self::Failed(failure) => Some(failure.code),
            _ => None,
        }
    }

    /// The container, exec or process does not exist (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(FailureCode::NotFound)
    }

    /// The shim process is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused))
    }
}

/// A shim, by its directory.
#[derive(Clone, Debug)]
pub struct Shim {
    dir: PathBuf,
}

impl Shim {
    /// Starts a shim that outlives this process and answers once it serves.
    ///
    /// # Errors
    /// When the executable cannot be run or the shim cannot set itself up (another one lives in `dir`).
    pub async fn spawn(options: &SpawnOptions) -> Result<Self, Error> {
        spawn::spawn(options).await?;
        Ok(Self { dir: options.dir.clone() })
    }

    /// Finds the shim that lives in `dir` and checks that it answers.
    ///
    /// # Errors
    /// [`Error::is_gone`] when it is dead.
    pub async fn connect(dir: &Path) -> Result<Self, Error> {
        let shim = Self { dir: dir.to_owned() };
        shim.state().await?;
        Ok(shim)
    }

    /// The shim's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes and pins the pod's namespaces.
    ///
    /// # Errors
    /// Refusals by the kernel; nothing is left then.
    pub async fn create_sandbox(&self, sandbox: CreateSandbox) -> Result<Sandbox, Error> {
        match self.call("create sandbox", Request::CreateSandbox(sandbox)).await? {
            Answer::Sandbox(sandbox) => Ok(sandbox),
            other => Err(unexpected("create sandbox", &other)),
        }
    }

    /// Applies sysctls inside the sandbox's namespaces.
    ///
    /// # Errors
    /// When one is unknown to the kernel or has a bad value.
    pub async fn apply_sysctls(
        &self,
        sysctls: std::collections::BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.done("apply sysctls", Request::ApplySysctls { sysctls }).await
    }

    /// Creates a container; returns its init's pid on the host.
    ///
    /// # Errors
    /// The OCI runtime's own text as [`Error::Failed`] with [`FailureCode::Runtime`].
    pub async fn create(&self, container: CreateContainer) -> Result<i32, Error> {
        let limit = runtime_limit(container.timeout_ms);
        let request = Request::CreateContainer(container);
        match wire::call(&self.dir, "create container", &request, limit).await? {
            Answer::Pid(pid) => Ok(pid),
            other => Err(unexpected("create container", &other)),
        }
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.done("start container", Request::Start { id: id.into() }).await
    }

    /// Starts another process in a container without anyone on its streams; returns its pid on the host.
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn exec(&self, mut process: ExecProcess) -> Result<i32, Error> {
        process.attach = false;
        match self.call("exec", Request::Exec(process)).await? {
            Answer::Pid(pid) => Ok(pid),
            other => Err(unexpected("exec", &other)),
        }
    }

    /// Starts another process in a container and holds its streams. The process waits when nobody
    /// reads; when the stream is dropped it runs on and its output is dropped.
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn exec_stream(&self, mut process: ExecProcess) -> Result<AttachStream, Error> {
        process.attach = true;
        let request = Request::Exec(process);
        let (answer, connection) = wire::open(&self.dir, "exec", &request, runtime_limit(None)).await?;
        match answer {
            Answer::Pid(pid) => Ok(AttachStream::new(connection, Some(pid))),
            other => Err(unexpected("exec", &other)),
        }
    }

    /// Runs a command in a container to its end: output bounded, time bounded (then it is killed).
    ///
    /// # Errors
    /// The OCI runtime's own text; [`Error::ExecTimeout`].
    pub async fn exec_sync(
        &self,
        process: ExecProcess,
        options: ExecSyncOptions,
    ) -> Result<ExecSyncOutput, Error> {
        exec_sync::run(self, process, options).await
    }

    /// Joins the streams of a container or exec. A client that does not read is dropped by the shim.
    ///
    /// # Errors
    /// When there is no such process or it has ended.
    pub async fn attach(
        &self,
        id: &str,
        exec: Option<&str>,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<AttachStream, Error> {
        let request = Request::Attach { id: id.into(), exec: exec.map(Into::into), stdin, stdout, stderr };
        let (_, connection) = wire::open(&self.dir, "attach", &request, CALL_TIMEOUT).await?;
        Ok(AttachStream::new(connection, None))
    }

    /// Sends a signal to a container's init (or `all` its processes) or to an exec.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when it has ended already.
    pub async fn kill(&self, id: &str, exec: Option<&str>, signal: i32, all: bool) -> Result<(), Error> {
        let request = Request::Kill { id: id.into(), exec: exec.map(Into::into), signal, all };
        self.done("kill", request).await
    }

    /// Deletes a container; how it ended, when it had started.
    ///
    /// # Errors
    /// [`FailureCode::FailedPrecondition`] when it still runs and `force` is off.
    pub async fn delete(&self, container: DeleteContainer) -> Result<Option<ExitRecord>, Error> {
        match self.call("delete container", Request::Delete(container)).await? {
            Answer::Deleted(exit) => Ok(exit),
            other => Err(unexpected("delete container", &other)),
        }
    }

    /// Forgets an exec that has ended.
    ///
    /// # Errors
    /// When it still runs or is not known.
    pub async fn delete_exec(&self, id: &str, exec: &str) -> Result<ExitRecord, Error> {
        let request = Request::DeleteExec { id: id.into(), exec: exec.into() };
        match self.call("delete exec", request).await? {
            Answer::Exit(exit) => Ok(exit),
            other => Err(unexpected("delete exec", &other)),
        }
    }

    /// Waits (without limit) for a container or exec to end.
    ///
    /// # Errors
    /// When there is no such process, or the shim dies.
    pub async fn wait(&self, id: &str, exec: Option<&str>) -> Result<ExitRecord, Error> {
        let request = Request::Wait { id: id.into(), exec: exec.map(Into::into) };
        match wire::call(&self.dir, "wait", &request, Duration::MAX).await? {
            Answer::Exit(exit) => Ok(exit),
            other => Err(unexpected("wait", &other)),
        }
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        self.done("pause", Request::Pause { id: id.into() }).await
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn resume(&self, id: &str) -> Result<(), Error> {
        self.done("resume", Request::Resume { id: id.into() }).await
    }

    /// Changes a container's limits (OCI `LinuxResources`).
    ///
    /// # Errors
    /// The OCI runtime's own text.
    pub async fn update(&self, id: &str, resources: serde_json::Value) -> Result<(), Error> {
        let request = Request::Update { id: id.into(), resources };
        self.done("update", request).await
    }

    /// Everything the shim holds.
    ///
    /// # Errors
    /// [`Error::is_gone`] when it is dead.
    pub async fn state(&self) -> Result<ShimState, Error> {
        match self.call("state", Request::State).await? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected("state", &other)),
        }
    }

    /// Exits: first all that the shim still remembers, then those to come. Ends with the shim.
    ///
    /// # Errors
    /// [`Error::is_gone`] when it is dead.
    pub async fn events(&self) -> Result<Events, Error> {
        let (_, connection) = wire::open(&self.dir, "events", &Request::Events, CALL_TIMEOUT).await?;
        Ok(Events::new(connection))
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// When the process has no terminal or is not known.
    pub async fn resize(&self, id: &str, exec: Option<&str>, size: TerminalSize) -> Result<(), Error> {
        let request = Request::Resize { id: id.into(), exec: exec.map(Into::into), size };
        self.done("resize", request).await
    }

    /// Closes a process's stdin.
    ///
    /// # Errors
    /// When the process is not known.
    pub async fn close_stdin(&self, id: &str, exec: Option<&str>) -> Result<(), Error> {
        let request = Request::CloseStdin { id: id.into(), exec: exec.map(Into::into) };
        self.done("close stdin", request).await
    }

    /// Opens a container's log file again after a rotation.
    ///
    /// # Errors
    /// When the file cannot be opened (the old one stays in use).
    pub async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        self.done("reopen log", Request::ReopenLog { id: id.into() }).await
    }

    /// Ends the shim: unpins the namespaces and removes its socket and directory.
    ///
    /// # Errors
    /// [`FailureCode::FailedPrecondition`] while a container has not been deleted.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.done("shutdown", Request::Shutdown).await
    }

    async fn call(&self, call: &'static str, request: Request) -> Result<Answer, Error> {
        wire::call(&self.dir, call, &request, runtime_limit(None)).await
    }

    async fn done(&self, call: &'static str, request: Request) -> Result<(), Error> {
        match self.call(call, request).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(call, &other)),
        }
    }
}

fn runtime_limit(timeout_ms: Option<u64>) -> Duration {
    let limit = timeout_ms.unwrap_or(crate::protocol::DEFAULT_RUNTIME_TIMEOUT_MS);
    Duration::from_millis(limit) + CALL_TIMEOUT
}

fn unexpected(call: &'static str, answer: &Answer) -> Error {
    Error::Protocol { call, message: format!("{answer:?}") }
}

//! What the daemon and a shim say to each other: length-prefixed JSON over `<dir>/shim.sock`.
//!
//! A connection carries one request: `u32` little-endian length, then a [`Request`] as JSON; the answer
//! is a [`Reply`] in the same form. Three requests turn the connection into something longer:
//!
//! - [`Request::Attach`], and [`Request::Exec`] with `attach`: after the reply, both sides send
//!   [frames](FrameKind) until the process has ended (the shim's last frame is `Exit`) or one side hangs up.
//! - [`Request::Events`]: after the reply, the shim sends length-prefixed [`Event`]s: first every exit it
//!   still remembers, then those to come.
//!
//! One request per connection keeps a hung call from holding up another, and a client that dies in
//! the middle of anything is a closed connection and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The largest request in bytes (an exec's environment may reach the kernel's 2 MiB).
pub const MAX_REQUEST: usize = 4 << 20;
/// The largest reply or event in bytes.
pub const MAX_REPLY: usize = 16 << 20;
/// The largest payload of one stream frame in bytes.
pub const MAX_FRAME: usize = 64 << 10;
/// A line longer than this many bytes is split in the CRI log; all pieces but the last are tagged `P`.
pub const MAX_LOG_LINE: usize = 16 << 10;
/// How long a call of the OCI runtime may take, in milliseconds, when the request names no time.
pub const DEFAULT_RUNTIME_TIMEOUT_MS: u64 = 120_000;

/// The socket of the shim that owns `dir`.
#[must_use]
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("shim.sock")
}

/// The durable exit record of a container: `<state>/<id>/exit.json`, an [`ExitRecord`] as JSON.
#[must_use]
pub fn exit_path(state: &Path, id: &str) -> PathBuf {
    state.join(id).join("exit.json")
}

/// Everything a daemon can ask of a shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "camelCase")]
pub enum Request {
    /// Make and pin the pod's namespaces. Answers [`Answer::Sandbox`].
    CreateSandbox(CreateSandbox),
    /// Apply sysctls inside the sandbox's namespaces (again after the network is there, for
    /// `net.*.conf.eth0.*`). Answers [`Answer::Done`].
    ApplySysctls {
        /// Name to value, with dots (`net.core.somaxconn`).
        sysctls: BTreeMap<String, String>,
    },
    /// Run the OCI runtime's `create`. Answers [`Answer::Pid`].
    CreateContainer(CreateContainer),
    /// Run the OCI runtime's `start`. Answers [`Answer::Done`].
    Start {
        /// The container.
        id: String,
    },
    /// Start another process in a container. Answers [`Answer::Pid`].
    Exec(ExecProcess),
    /// Send a signal. Answers [`Answer::Done`]; `NotFound` when the process has ended already.
    Kill {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
        /// The signal's number.
        signal: i32,
        /// All processes of the container, not only its init (for containers that share a pid namespace).
        all: bool,
    },
    /// Run the OCI runtime's `delete` and forget the container. Answers [`Answer::Deleted`].
    Delete(DeleteContainer),
    /// Forget an exec that has ended. Answers [`Answer::Exit`].
    DeleteExec {
        /// The container.
        id: String,
        /// The exec in it.
        exec: String,
    },
    /// Freeze the container's processes. Answers [`Answer::Done`].
    Pause {
        /// The container.
        id: String,
    },
    /// Thaw the container's processes. Answers [`Answer::Done`].
    Resume {
        /// The container.
        id: String,
    },
    /// Change the container's cgroup limits (OCI `LinuxResources`). Answers [`Answer::Done`].
    Update {
        /// The container.
        id: String,
        /// OCI `LinuxResources` as JSON.
        resources: serde_json::Value,
    },
    /// All containers and their execs. Answers [`Answer::State`].
    State,
    /// Wait for a process to end. Answers [`Answer::Exit`], at once when it has ended already.
    Wait {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
    },
    /// Set a terminal's size. Answers [`Answer::Done`].
    Resize {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
        /// The new size.
        size: TerminalSize,
    },
    /// Close a process's stdin. Answers [`Answer::Done`].
    CloseStdin {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
    },
    /// Open the log file again after a rotation. Answers [`Answer::Done`].
    ReopenLog {
        /// The container.
        id: String,
    },
    /// Join a process's streams. Answers [`Answer::Done`], then frames.
    Attach {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
        /// Whether stdin frames will be sent.
        stdin: bool,
        /// Whether stdout frames are wanted (with a terminal: all output).
        stdout: bool,
        /// Whether stderr frames are wanted.
        stderr: bool,
    },
    /// Hear of exits. Answers [`Answer::Done`], then events.
    Events,
    /// End the shim: unpin the namespaces, end the pause process, remove the socket. Refused while a
    /// container has not been deleted. Answers [`Answer::Done`].
    Shutdown,
}

/// One of the pod's namespaces: whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// The host's: nothing is made.
    #[default]
    Host,
    /// The pod's: made now and pinned under `<dir>/ns`.
    Pod,
    /// Each container's own (only for pid): nothing is made.
    Container,
}

/// The pod sandbox to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSandbox {
    /// The pod's hostname (uts namespace); empty leaves it.
    pub hostname: String,
    /// Network.
    pub net: NamespaceMode,
    /// System V IPC and POSIX message queues.
    pub ipc: NamespaceMode,
    /// Hostname.
    pub uts: NamespaceMode,
    /// Processes; `Pod` starts a pause process as pid 1 (`shareProcessNamespace`).
    pub pid: NamespaceMode,
    /// Where to pin the network namespace; `<dir>/ns/net` when absent. Its directory must exist.
    pub netns_path: Option<PathBuf>,
    /// Sysctls of these namespaces, with dots; those of `net` need `net: Pod`, those of ipc `ipc: Pod`.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup directories (one per v1 hierarchy, or one of v2) that the pause process joins.
    pub cgroups: Vec<PathBuf>,
    /// The pause process's oom score; raised when the process may not lower it that far.
    pub oom_score_adj: Option<i32>,
    /// The pod's own user namespace, which then owns all the others; none is the host's.
    #[serde(default)]
    pub user: Option<IdMappings>,
}

/// Which ids of the host stand for those inside a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMappings {
    /// Of users.
    pub uids: Vec<IdMapping>,
    /// Of groups.
    pub gids: Vec<IdMapping>,
}

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// The first one inside.
    pub container_id: u32,
    /// What it is on the host.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// The namespaces that a sandbox has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Pinned user namespace; none is the host's.
    #[serde(default)]
    pub user: Option<PathBuf>,
    /// Pinned network namespace; none is the host's.
    pub net: Option<PathBuf>,
    /// Pinned ipc namespace; none is the host's.
    pub ipc: Option<PathBuf>,
    /// Pinned uts namespace; none is the host's.
    pub uts: Option<PathBuf>,
    /// Pinned pid namespace; only with a shared one.
    pub pid: Option<PathBuf>,
    /// The pause process as the host counts it; only with a shared pid namespace.
    pub pause_pid: Option<i32>,
    /// The pause process has ended: the sandbox is dead.
    #[serde(default)]
    pub pause_exited: bool,
}

/// Which OCI runtime runs a container, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciRuntime {
    /// The executable, absolute.
    pub path: PathBuf,
    /// Arguments before the global flags: `["oci"]` for our own, `["--platform=systrap"]` for runsc.
    pub args: Vec<String>,
    /// The runtime's own state directory (`--root`).
    pub root: PathBuf,
    /// Run it where `/sys/fs/cgroup/unified` is not mounted: crun refuses hybrid cgroups.
    #[serde(default)]
    pub hide_unified: bool,
    /// The container's processes are not the host's (runsc): signals go through the runtime's `kill`.
    #[serde(default)]
    pub opaque: bool,
}

/// The container to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateContainer {
    /// Its id: `[A-Za-z0-9_.-]+`.
    pub id: String,
    /// The OCI bundle (`config.json` inside).
    pub bundle: PathBuf,
    /// Who runs it.
    pub runtime: OciRuntime,
    /// The CRI log file, absolute; none keeps no log. The directory must exist.
    pub log_path: Option<PathBuf>,
    /// A terminal instead of pipes; must agree with the spec's `process.terminal`.
    pub tty: bool,
    /// Keep stdin open for attach; else it is `/dev/null`.
    pub stdin: bool,
    /// Close stdin when the first attach session with stdin has ended.
    pub stdin_once: bool,
    /// The container's memory cgroup directory, to tell an OOM kill from another.
    pub memory_cgroup: Option<PathBuf>,
    /// Longest time for each call of the runtime, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// Another process in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecProcess {
    /// The container.
    pub container: String,
    /// The exec's id, unique in the container.
    pub id: String,
    /// OCI `Process` as JSON; `terminal` must agree with `tty`.
    pub process: serde_json::Value,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Keep stdin open; else it is `/dev/null`.
    pub stdin: bool,
    /// The connection carries the streams after the reply; without it all output is dropped.
    pub attach: bool,
}

/// The container to delete.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteContainer {
    /// The container.
    pub id: String,
    /// Kill it when it still runs; and do not fail when the runtime knows nothing of it.
    pub force: bool,
    /// For a container that this shim does not know (its first shim died): who ran it.
    pub runtime: Option<OciRuntime>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A reply: an answer or a failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// It was done.
    Ok(Answer),
    /// It was not.
    Err(Failure),
}

/// What a request was answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The new process, as the host counts it.
    Pid(i32),
    /// The sandbox as it is now.
    Sandbox(Sandbox),
    /// How the process ended.
    Exit(ExitRecord),
    /// How the deleted container had ended; none when it was never started or not known.
    Deleted(Option<ExitRecord>),
    /// Everything the shim holds.
    State(ShimState),
}

/// Why a request failed, for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureCode {
    /// No such container, exec or process.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// Not in this state (started twice, exec in a stopped container, shutdown with containers).
    FailedPrecondition,
    /// The request makes no sense.
    InvalidArgument,
    /// The OCI runtime failed; the message is its own text.
    Runtime,
    /// The OCI runtime took too long and was killed.
    Timeout,
    /// The kernel refused something.
    Internal,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub message: String,
}

/// How a process ended. Also the content of `<state>/<id>/exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// The exit code as Kubernetes counts: 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it; 0 when it exited.
    pub signal: i32,
    /// When, in nanoseconds since the epoch.
    pub finished_at: i64,
    /// The kernel killed something in its memory cgroup for want of memory.
    pub oom_killed: bool,
}

/// Everything a shim holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimState {
    /// The shim's sandbox id.
    pub id: String,
    /// The shim's own process.
    pub pid: i32,
    /// The sandbox, once made.
    pub sandbox: Option<Sandbox>,
    /// Its containers.
    pub containers: Vec<ContainerState>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// The runtime's `create` is running; moves on when it returns (away, when it fails).
    Creating,
    /// Created; moves on by `Start`, or by dying.
    Created,
    /// Started; moves on when its init ends.
    Running,
    /// Ended; goes away by `Delete`.
    Exited,
}

/// A container as the shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// Its init, as the host counts it; 0 while creating.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// Frozen by `Pause`.
    pub paused: bool,
    /// It has a terminal.
    pub tty: bool,
    /// Created, in nanoseconds since the epoch.
    pub created_at: i64,
    /// Started, in nanoseconds since the epoch.
    pub started_at: Option<i64>,
    /// How it ended.
    pub exit: Option<ExitRecord>,
    /// Its execs.
    pub execs: Vec<ExecState>,
}

/// An exec as the shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecState {
    /// Its id.
    pub id: String,
    /// Its process, as the host counts it; 0 while starting.
    pub pid: i32,
    /// How it ended.
    pub exit: Option<ExitRecord>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// A process ended.
    Exit {
        /// The container.
        id: String,
        /// The exec in it; none means the container's init.
        exec: Option<String>,
        /// How it ended.
        exit: ExitRecord,
    },
    /// The pause process ended: the sandbox is dead, and its containers with it.
    SandboxExit {
        /// How it ended.
        exit: ExitRecord,
    },
}

/// The kinds of stream frames: kind `u8`, length `u32` little-endian, payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Daemon to shim: bytes for the process.
    Stdin = 0,
    /// Shim to daemon: bytes of the process (with a terminal: all of them).
    Stdout = 1,
    /// Shim to daemon: bytes of the process.
    Stderr = 2,
    /// Daemon to shim: width and height, two `u16` little-endian.
    Resize = 3,
    /// Daemon to shim: no more stdin.
    StdinClose = 4,
    /// Shim to daemon, the last one: an [`ExitRecord`] as JSON.
    Exit = 5,
}

impl FrameKind {
    /// The kind of a frame's first byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Resize,
            4 => Self::StdinClose,
            5 => Self::Exit,
            _ => return None,
        })
    }

    /// The five bytes in front of a payload of `length` bytes.
    #[must_use]
    pub fn header(self, length: usize) -> [u8; 5] {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        [self as u8, length[0], length[1], length[2], length[3]]
    }
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

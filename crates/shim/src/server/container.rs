//! What the shim knows of its containers and of the processes in them.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cri_log::CriLog;
use crate::protocol::{ContainerState, ExecState, ExitRecord, OciRuntime, Status};

/// A container: the runtime that made it, its init and its execs.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) runtime: OciRuntime,
    pub(super) status: Status,
    pub(super) paused: bool,
    pub(super) created_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) memory_cgroup: Option<PathBuf>,
    pub(super) timeout: Duration,
    /// Its init's key.
    pub(super) init: u64,
    /// Its execs' keys.
    pub(super) execs: BTreeMap<String, u64>,
    /// The runtime has deleted it; its init is still to be reaped, then this connection is answered.
    pub(super) deleted_for: Option<u64>,
}

/// A process that the shim is the parent of: a container's init, or an exec.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) container: String,
    pub(super) exec: Option<String>,
    /// 0 until the runtime has told.
    pub(super) pid: i32,
    pub(super) tty: bool,
    pub(super) stdin_once: bool,
    pub(super) input: Option<Input>,
    /// Stdout and stderr; a terminal's master is the first.
    pub(super) outputs: [Option<Output>; 2],
    pub(super) log: Option<CriLog>,
    /// Connections that carry its streams.
    pub(super) attached: Vec<u64>,
    /// Connections that wait for its end.
    pub(super) waiters: Vec<u64>,
    /// An exec whose client holds its streams: it is slowed down rather than its output lost.
    pub(super) streamed: bool,
    /// To be sent this signal (with its descendants) as soon as the runtime has told its pid.
    pub(super) doomed: Option<(i32, bool)>,
    pub(super) exit: Option<ExitRecord>,
    /// Its end has been told; until then its last output is being read.
    pub(super) announced: bool,
    /// It has ended; longest time to wait for the end of its output (others may hold the pipe).
    pub(super) drain_until: Option<Instant>,
}

/// The shim's end of a process's stdin.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) fd: OwnedFd,
    pub(super) token: u64,
    pub(super) queue: VecDeque<u8>,
    /// Close it when the queue is empty.
    pub(super) closing: bool,
    /// Epoll watches it.
    pub(super) watched: bool,
}

/// The shim's end of one of a process's outputs.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) token: u64,
    /// Not read: the client is behind.
    pub(super) held: bool,
}

impl Process {
    pub(super) fn new(container: &str, exec: Option<&str>, tty: bool) -> Self {
        Self {
            container: container.to_owned(),
            exec: exec.map(ToOwned::to_owned),
            pid: 0,
            tty,
            stdin_once: false,
            input: None,
            outputs: [None, None],
            log: None,
            attached: Vec::new(),
            waiters: Vec::new(),
            streamed: false,
            doomed: None,
            exit: None,
            announced: false,
            drain_until: None,
        }
    }

    /// Whether all that it wrote has been read.
    pub(super) fn drained(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }
}

impl Container {
    /// As the protocol shows it.
    pub(super) fn state(&self, id: &str, processes: &BTreeMap<u64, Process>) -> ContainerState {
        let init = processes.get(&self.init);
        ContainerState {
            id: id.to_owned(),
            pid: init.map_or(0, |init| init.pid),
            status: self.status,
            paused: self.paused,
            tty: init.is_some_and(|init| init.tty),
            created_at: self.created_at,
            started_at: self.started_at,
            exit: init.and_then(|init| init.exit.clone()),
            execs: self
                .execs
                .iter()
                .filter_map(|(id, key)| {
                    let exec = processes.get(key)?;
                    Some(ExecState { id: id.clone(), pid: exec.pid, exit: exec.exit.clone() })
                })
                .collect(),
        }
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

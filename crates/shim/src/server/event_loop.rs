//! The loop: one epoll over signals, the listener, connections, pipes and terminals.
//!
//! Every descriptor in it has a token that is never used twice, so an event for something that an
//! earlier event of the same round has closed finds nothing and is dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::process::Rlimit;

use super::EmbeddedRuntime;
use super::arguments::Arguments;
use super::connection::Connection;
use super::container::{Container, Process};
use super::cri_log::Stream;
use super::jobs::Job;
use super::journal::note;
use crate::kernel::children::WaitStatus;
use crate::kernel::signals;
use crate::limits;
use crate::protocol::{ExitRecord, Sandbox};

/// Bytes read at once.
const BUFFER: usize = 32 << 10;
/// More clients than this at once are not let in.
const MAX_CONNECTIONS: usize = 1024;
/// Without descriptors (or memory) for another client, clients wait this long.
const DEAF_TIME: Duration = Duration::from_millis(50);

/// What a token stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Signals,
    Listener,
    /// The connection with the token as its key.
    Connection,
    /// The stdin of the process with this key.
    Input(u64),
    /// An output of the process with this key.
    Output(u64, Stream),
    /// The console socket of the job with this key (the runtime's pid).
    Console(i32),
    /// The stderr of the job with this key.
    Errors(i32),
}

/// A shim.
pub(super) struct Shim {
    pub(super) arguments: Arguments,
    /// The file that this process was started from.
    pub(super) executable: Option<PathBuf>,
    pub(super) embedded_runtime: EmbeddedRuntime,
    pub(super) listener: UnixListener,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) processes: BTreeMap<u64, Process>,
    /// Calls of the OCI runtime under way, by its pid.
    pub(super) jobs: BTreeMap<i32, Job>,
    /// Children that ended before the runtime had told whose they are.
    pub(super) early: BTreeMap<i32, (WaitStatus, i64)>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) pause_exit: Option<ExitRecord>,
    pub(super) stopping: bool,
    pub(super) epoll: OwnedFd,
    signals: OwnedFd,
    /// The listener's token, and until when it is not listened to.
    listening: u64,
    deaf_until: Option<Instant>,
    /// What the OCI runtimes get, whatever this process took for itself.
    pub(super) open_files: Rlimit,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
    pub(super) buffer: Vec<u8>,
}

impl Shim {
    pub(super) fn new(
        arguments: Arguments,
        listener: UnixListener,
        embedded_runtime: EmbeddedRuntime,
    ) -> io::Result<Self> {
        let mut shim = Self {
            arguments,
            executable: std::env::current_exe().ok(),
            embedded_runtime,
            listener,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            early: BTreeMap::new(),
            sandbox: None,
            pause_exit: None,
            stopping: false,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals: signals::signal_fd()?,
            listening: 0,
            deaf_until: None,
            open_files: limits::raise_open_files(),
            sources: BTreeMap::new(),
            next_token: 0,
            buffer: vec![0; BUFFER],
        };
        let token = shim.token(Source::Signals);
        add(&shim.epoll, &shim.signals, token, epoll::EventFlags::IN)?;
        shim.listening = shim.token(Source::Listener);
        add(&shim.epoll, &shim.listener, shim.listening, epoll::EventFlags::IN)?;
        Ok(shim)
    }

    /// Serves until a shutdown is asked for.
    pub(super) fn run(&mut self) {
        let mut events = Vec::with_capacity(32);
        while !self.stopping || self.connections.values().any(|c| c.behind() > 0) {
            let timeout = self.next_deadline().map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, or the loop would spin through the last millisecond.
                Timespec::try_from(left + Duration::from_millis(1))
                    .unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
            });
            events.clear();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    note(format_args!("epoll: {error}"));
                    return;
                }
            }
            for event in &events {
                let (flags, token) = (event.flags, event.data.u64());
                self.dispatch(token, flags);
            }
            self.expire();
        }
    }

    fn dispatch(&mut self, token: u64, flags: epoll::EventFlags) {
        let Some(source) = self.sources.get(&token).copied() else {
            return;
        };
        match source {
            Source::Signals => {
                signals::drain(&self.signals);
                self.reap();
            }
            Source::Listener => self.accept(),
            Source::Connection => self.on_connection(token, flags),
            Source::Input(process) => self.pump_input(process),
            Source::Output(process, stream) => self.on_output(process, stream),
            Source::Console(job) => self.on_console(job),
            Source::Errors(job) => self.on_errors(job),
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if self.connections.len() >= MAX_CONNECTIONS || socket.set_nonblocking(true).is_err() {
                        continue;
                    }
                    let token = self.token(Source::Connection);
                    if add(&self.epoll, &socket, token, epoll::EventFlags::IN).is_ok() {
                        self.connections.insert(token, Connection::new(socket));
                    } else {
                        self.sources.remove(&token);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // The client stays in the queue, and the listener ready: looking again at once would be a
                    // busy loop.
                    note(format_args!("accept: {error}"));
                    Self::unwatch(&self.epoll, &self.listener);
                    self.deaf_until = Some(Instant::now() + DEAF_TIME);
                    return;
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let jobs = self.jobs.values().map(|job| job.deadline);
        let drains = self.processes.values().filter_map(|p| p.drain_until);
        jobs.chain(drains).chain(self.deaf_until).min()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.deaf_until = None;
            Self::watch(&self.epoll, &self.listener, self.listening, false);
        }
        self.expire_jobs(now);
        self.expire_drains(now);
    }

    // Tokens and epoll.

    /// A new token for a source.
    pub(super) fn token(&mut self, source: Source) -> u64 {
        self.next_token += 1;
        self.sources.insert(self.next_token, source);
        self.next_token
    }

    /// Lets a token stand for something else.
    pub(super) fn retarget(&mut self, token: u64, source: Source) {
        self.sources.insert(token, source);
    }

    /// A new key, from the same numbers.
    pub(super) fn key(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Forgets a source that is being closed.
    pub(super) fn forget(&mut self, token: u64) {
        self.sources.remove(&token);
    }

    /// Watches a descriptor.
    pub(super) fn watch(epoll: &OwnedFd, fd: impl AsFd, token: u64, write: bool) {
        let flags = if write { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        if let Err(error) = add(epoll, fd, token, flags) {
            note(format_args!("watch: {error}"));
        }
    }

    /// Stops watching a descriptor that stays open.
    pub(super) fn unwatch(epoll: &OwnedFd, fd: impl AsFd) {
        let _ = epoll::delete(epoll, fd);
    }

    /// Makes epoll watch a connection for what it wants now.
    pub(super) fn rearm(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let wants = connection.wants();
        if wants == connection.interest {
            return;
        }
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, wants.0);
        flags.set(epoll::EventFlags::OUT, wants.1);
        let data = epoll::EventData::new_u64(token);
        if epoll::modify(&self.epoll, &connection.socket, data, flags).is_ok() {
            connection.interest = wants;
        }
    }
}

fn add(epoll: &OwnedFd, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), flags)
}

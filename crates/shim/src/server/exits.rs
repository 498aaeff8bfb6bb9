//! Ends: reaping, the durable record, and telling whoever wants to know.
//!
//! The order matters. A container's exit is on the disk before anyone hears of it, and its output is in
//! its log and with its clients before that.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::connection::Mode;
use super::container::now;
use super::event_loop::Shim;
use super::journal::note;
use crate::kernel::children::{self, WaitStatus};
use crate::protocol::{Answer, Event, ExitRecord, FrameKind, Status, exit_path};

/// How long after a process's end its output is still waited for, when others hold the pipe open (and a
/// terminal may be a moment late with what was written last).
pub(super) const DRAIN_TIME: Duration = Duration::from_millis(200);
/// Ended execs whose exit nobody has fetched; older ones are forgotten.
const KEPT_EXECS: usize = 256;

impl Shim {
    /// Takes in all children that have ended.
    pub(super) fn reap(&mut self) {
        while let Some((pid, status)) = children::reap() {
            if self.jobs.contains_key(&pid) {
                self.finish_job(pid, status);
            } else if let Some(key) = self.process_of(pid) {
                self.process_ended(key, status, now());
            } else if self.is_pause(pid) {
                self.pause_ended(status);
            } else if self.jobs.values().any(super::jobs::Job::makes_process) {
                // Perhaps the one that the runtime has just made.
                self.early.insert(pid, (status, now()));
            }
        }
        if !self.jobs.values().any(super::jobs::Job::makes_process) {
            self.early.clear();
        }
    }

    fn process_of(&self, pid: i32) -> Option<u64> {
        let mut processes = self.processes.iter();
        processes.find(|(_, process)| process.pid == pid && process.exit.is_none()).map(|(key, _)| *key)
    }

    /// A process has ended.
    pub(super) fn process_ended(&mut self, key: u64, status: WaitStatus, finished_at: i64) {
        let Some(process) = self.processes.get(&key) else {
            return;
        };
        let (id, is_init) = (process.container.clone(), process.exec.is_none());
        let container = self.containers.get_mut(&id);
        let cgroup = container.as_ref().and_then(|c| c.memory_cgroup.as_deref());
        let record = ExitRecord {
            code: status.code,
            signal: status.signal,
            finished_at,
            oom_killed: cgroup.is_some_and(oom_killed),
        };
        if is_init {
            if let Some(container) = container {
                container.status = Status::Exited;
                container.paused = false;
            }
            if let Err(error) = write_durably(&exit_path(&self.arguments.state, &id), &record) {
                note(format_args!("record the exit of {id}: {error}"));
            }
        }
        if let Some(process) = self.processes.get_mut(&key) {
            process.exit = Some(record);
            if let Some(input) = process.input.take() {
                self.forget(input.token);
            }
        }
        if self.drain_outputs(key) {
            self.announce(key);
        } else if let Some(process) = self.processes.get_mut(&key) {
            process.drain_until = Some(Instant::now() + DRAIN_TIME);
        }
        if is_init {
            self.finish_delete(&id);
        }
    }

    /// After some output has ended: perhaps that was all, and the end can be told.
    pub(super) fn conclude(&mut self, key: u64) {
        let Some(process) = self.processes.get(&key) else {
            return;
        };
        if process.exit.is_some() && process.drained() {
            if process.announced {
                self.forget_exec_if_done(key);
            } else {
                self.announce(key);
            }
        }
    }

    /// Tells of a process's end: to who waits for it, to its clients, to who listens.
    pub(super) fn announce(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(exit) = process.exit.clone() else {
            return;
        };
        if std::mem::replace(&mut process.announced, true) {
            return;
        }
        process.drain_until = None;
        let (id, exec) = (process.container.clone(), process.exec.clone());
        let waiters = std::mem::take(&mut process.waiters);
        let attached = process.attached.clone();
        let delivered = process.streamed && !attached.is_empty();
        for token in waiters {
            self.reply(token, Ok(Answer::Exit(exit.clone())));
        }
        let frame = serde_json::to_vec(&exit).unwrap_or_default();
        for token in attached {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.send_frame(FrameKind::Exit, &frame);
                connection.mode = Mode::Done;
                connection.held = true;
                self.settle(token);
            }
        }
        if let Some(process) = self.processes.get_mut(&key) {
            process.attached.clear();
        }
        self.hold_outputs(key);
        if let Some(name) = &exec
            && let Some(container) = self.containers.get_mut(&id)
        {
            if delivered {
                container.execs.remove(name);
            } else {
                self.forget_old_execs(&id);
            }
        }
        self.broadcast(&Event::Exit { id, exec, exit });
        self.forget_exec_if_done(key);
    }

    /// Drops an exec that no one can ask for any more, once its output has ended.
    pub(super) fn forget_exec_if_done(&mut self, key: u64) {
        let Some(process) = self.processes.get(&key) else {
            return;
        };
        let Some(name) = &process.exec else { return };
        let container = self.containers.get(&process.container);
        let known = container.is_some_and(|container| container.execs.get(name) == Some(&key));
        if process.announced && process.drained() && !known {
            self.processes.remove(&key);
        }
    }

    fn forget_old_execs(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let ended = |key: &u64| self.processes.get(key).is_some_and(|p| p.announced);
        let mut old: Vec<u64> = container.execs.values().copied().filter(ended).collect();
        old.sort_unstable();
        let excess = old.len().saturating_sub(KEPT_EXECS);
        for key in old.into_iter().take(excess) {
            self.remove_process(key);
        }
    }

    /// Sends an event to all that listen.
    pub(super) fn broadcast(&mut self, event: &Event) {
        let listening: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.mode == Mode::Events)
            .map(|(token, _)| *token)
            .collect();
        for token in listening {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.send_message(event);
                self.settle(token);
            }
        }
    }

    /// All exits that are still remembered, as events.
    pub(super) fn remembered(&self) -> Vec<Event> {
        let mut exits: Vec<Event> = self
            .processes
            .values()
            .filter(|process| process.announced)
            .filter_map(|process| {
                Some(Event::Exit {
                    id: process.container.clone(),
                    exec: process.exec.clone(),
                    exit: process.exit.clone()?,
                })
            })
            .collect();
        if let Some(exit) = &self.pause_exit {
            exits.push(Event::SandboxExit { exit: exit.clone() });
        }
        exits
    }
}

/// Whether the kernel has killed in this memory cgroup: v2 counts in `memory.events`, v1 in
/// `memory.oom_control`, both on a line `oom_kill N`.
fn oom_killed(cgroup: &Path) -> bool {
    ["memory.events", "memory.oom_control"].iter().any(|file| {
        fs::read_to_string(cgroup.join(file)).is_ok_and(|text| {
            let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
            counts.any(|count| count.trim().parse::<u64>().is_ok_and(|count| count > 0))
        })
    })
}

/// Writes, syncs, renames, and syncs the directory.
fn write_durably(path: &Path, record: &ExitRecord) -> io::Result<()> {
    let partial = path.with_extension("json.partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

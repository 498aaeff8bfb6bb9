//! A container's way through the OCI runtime: create, start, exec, pause, update, delete.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::time::Duration;

use super::calls::Outcome;
use super::connection::{Mode, Streams};
use super::container::{Container, Process, now};
use super::cri_log::CriLog;
use super::event_loop::Shim;
use super::jobs::{Call, Job, Purpose, write_private};
use super::stdio::ChildStdio;
use crate::kernel::children;
use crate::protocol::{
    Answer, CreateContainer, DEFAULT_RUNTIME_TIMEOUT_MS, DeleteContainer, ExecProcess, Failure, FailureCode,
    Status, exit_path,
};

impl Shim {
    pub(super) fn create_container(&mut self, token: u64, request: &CreateContainer) -> Outcome {
        let id = &request.id;
        check_id(id)?;
        if self.containers.contains_key(id) {
            return Err(Failure::new(FailureCode::AlreadyExists, format!("container {id} exists")));
        }
        let internal = |what: &str| {
            let what = format!("{what} of container {id}");
            move |error: io::Error| Failure::new(FailureCode::Internal, format!("{what}: {error}"))
        };
        let record = exit_path(&self.arguments.state, id);
        if let Some(dir) = record.parent() {
            fs::create_dir_all(dir).map_err(internal("make the state directory"))?;
        }
        let _ = fs::remove_file(&record);
        let log = request.log_path.as_deref().map(CriLog::open);
        let log = log.transpose().map_err(internal("open the log"))?;

        let key = self.key();
        let mut process = Process::new(id, None, request.tty);
        process.stdin_once = request.stdin_once;
        process.log = log;
        self.processes.insert(key, process);
        let limit = request.timeout_ms.unwrap_or(DEFAULT_RUNTIME_TIMEOUT_MS);
        let limit = Duration::from_millis(limit);
        self.containers.insert(
            id.clone(),
            Container {
                runtime: request.runtime.clone(),
                status: Status::Creating,
                paused: false,
                created_at: now(),
                started_at: None,
                memory_cgroup: request.memory_cgroup.clone(),
                timeout: limit,
                init: key,
                execs: BTreeMap::new(),
                deleted_for: None,
            },
        );
        let mut call = self.prepare(&request.runtime, "create", limit, token);
        call.command.arg("--bundle").arg(&request.bundle);
        let purpose = Purpose::Create { container: id.clone(), process: key };
        let started = self
            .connect_stdio(&mut call, key, request.tty, request.stdin)
            .map_err(internal("open the stdio"))
            .and_then(|stdio| {
                call.command.arg(id);
                self.start_job(call, stdio, purpose)
            });
        if let Err(failure) = started {
            self.remove_container(id);
            return Err(failure);
        }
        Ok(None)
    }

    /// The pid file and the stdio of a call that makes a process; none when that has a terminal.
    fn connect_stdio(
        &mut self,
        call: &mut Call<'_>,
        process: u64,
        tty: bool,
        stdin: bool,
    ) -> io::Result<Option<ChildStdio>> {
        call.command.arg("--pid-file").arg(call.files.pid());
        if tty {
            self.open_console(call, process, stdin)?;
            return Ok(None);
        }
        self.open_pipes(process, stdin).map(Some)
    }

    pub(super) fn exec(&mut self, token: u64, request: &ExecProcess) -> Outcome {
        let id = &request.container;
        check_id(&request.id)?;
        let container = self.running(id)?;
        if container.execs.contains_key(&request.id) {
            return Err(Failure::new(
                FailureCode::AlreadyExists,
                format!("exec {} exists in container {id}", request.id),
            ));
        }
        let (runtime, limit) = (container.runtime.clone(), container.timeout);
        let key = self.key();
        let mut process = Process::new(id, Some(&request.id), request.tty);
        process.streamed = request.attach;
        self.processes.insert(key, process);
        if let Some(container) = self.containers.get_mut(id) {
            container.execs.insert(request.id.clone(), key);
        }
        let mut call = self.prepare(&runtime, "exec", limit, token);
        let started = serde_json::to_vec(&request.process)
            .map_err(io::Error::from)
            .and_then(|json| write_private(&call.files.json(), &json))
            .and_then(|()| {
                let json = call.files.json();
                call.command.arg("--detach").arg("--process").arg(json);
                self.connect_stdio(&mut call, key, request.tty, request.stdin)
            })
            .map_err(|error| Failure::new(FailureCode::Internal, format!("prepare the exec: {error}")))
            .and_then(|stdio| {
                call.command.arg(id);
                self.start_job(call, stdio, Purpose::Exec { process: key })
            });
        if let Err(failure) = started {
            self.remove_process(key);
            return Err(failure);
        }
        Ok(None)
    }

    pub(super) fn start(&mut self, token: u64, id: &str) -> Outcome {
        self.find(id, None)?;
        let status = self.containers.get(id).map(|container| container.status);
        if status != Some(Status::Created) {
            let status = status.unwrap_or(Status::Creating);
            return Err(Failure::new(
                FailureCode::FailedPrecondition,
                format!("container {id} cannot be started: it is {status:?}"),
            ));
        }
        let purpose = Purpose::Start { container: id.to_owned() };
        self.simple_call(token, id, "start", [id], purpose)
    }

    pub(super) fn pause(&mut self, token: u64, id: &str, paused: bool) -> Outcome {
        self.running(id)?;
        let verb = if paused { "pause" } else { "resume" };
        let container = id.to_owned();
        let purpose = Purpose::Pause { container, paused };
        self.simple_call(token, id, verb, [id], purpose)
    }

    pub(super) fn update(&mut self, token: u64, id: &str, resources: &serde_json::Value) -> Outcome {
        self.find(id, None)?;
        let Some(container) = self.containers.get(id) else {
            return Ok(None);
        };
        let (runtime, limit) = (container.runtime.clone(), container.timeout);
        let mut call = self.prepare(&runtime, "update", limit, token);
        let json = call.files.json();
        write_private(&json, resources.to_string().as_bytes())
            .map_err(|error| Failure::new(FailureCode::Internal, format!("prepare the update: {error}")))?;
        call.command.arg("--resources").arg(json).arg(id);
        self.start_job(call, None, Purpose::Update)?;
        Ok(None)
    }

    pub(super) fn delete(&mut self, token: u64, request: &DeleteContainer) -> Outcome {
        let id = &request.id;
        check_id(id)?;
        let known = self.containers.get(id);
        let runtime = match (known, &request.runtime) {
            (Some(container), _) => {
                let alive = matches!(container.status, Status::Creating | Status::Running);
                if alive && !request.force || container.status == Status::Creating {
                    return Err(Failure::new(
                        FailureCode::FailedPrecondition,
                        format!("container {id} cannot be deleted: it is {:?}", container.status),
                    ));
                }
                container.runtime.clone()
            }
            (None, Some(runtime)) => runtime.clone(),
            (None, None) if request.force => return Ok(Some(Answer::Deleted(None))),
            (None, None) => {
                let message = format!("no container {id}");
                return Err(Failure::new(FailureCode::NotFound, message));
            }
        };
        let limit =
            known.map_or(Duration::from_millis(DEFAULT_RUNTIME_TIMEOUT_MS), |container| container.timeout);
        let mut call = self.prepare(&runtime, "delete", limit, token);
        // A created container counts as alive for crun.
        if request.force || self.containers.get(id).is_some_and(|c| c.status == Status::Created) {
            call.command.arg("--force");
        }
        call.command.arg(id);
        let container = id.clone();
        self.start_job(call, None, Purpose::Delete { container })?;
        Ok(None)
    }

    /// A call with nothing but arguments.
    pub(super) fn simple_call<'a>(
        &mut self,
        token: u64,
        id: &str,
        verb: &'static str,
        arguments: impl IntoIterator<Item = &'a str>,
        purpose: Purpose,
    ) -> Outcome {
        let Some(container) = self.containers.get(id) else {
            return Ok(None);
        };
        let (runtime, limit) = (container.runtime.clone(), container.timeout);
        let mut call = self.prepare(&runtime, verb, limit, token);
        call.command.args(arguments.into_iter().map(OsStr::new));
        self.start_job(call, None, purpose)?;
        Ok(None)
    }

    /// A call of the runtime has ended.
    pub(super) fn finish(&mut self, job: Job, result: Result<(), Failure>) {
        let token = job.connection;
        let done = result.clone().map(|()| Answer::Done);
        match &job.purpose {
            Purpose::Create { container, process } => match result.and_then(|()| read_pid(&job)) {
                Ok(pid) => {
                    if let Some(container) = self.containers.get_mut(container) {
                        container.status = Status::Created;
                        container.created_at = now();
                    }
                    self.adopt(*process, pid);
                    self.reply(token, Ok(Answer::Pid(pid)));
                }
                Err(failure) => self.discard(token, container, failure),
            },
            Purpose::Exec { process } => match result.and_then(|()| read_pid(&job)) {
                Ok(pid) => self.exec_started(token, *process, pid),
                Err(failure) => {
                    self.remove_process(*process);
                    self.reply(token, Err(failure));
                }
            },
            Purpose::Start { container } => {
                if done.is_ok() {
                    self.started(container);
                }
                self.reply(token, done);
            }
            Purpose::Pause { container, paused } => {
                if let (Ok(_), Some(container)) = (&done, self.containers.get_mut(container)) {
                    container.paused = *paused;
                }
                self.reply(token, done);
            }
            Purpose::Signal | Purpose::Update => self.reply(token, done),
            Purpose::Discard { failure } => self.reply(token, Err(failure.clone())),
            Purpose::Delete { container } => match result {
                Err(failure) => self.reply(token, Err(failure)),
                Ok(()) => {
                    if let Some(known) = self.containers.get_mut(container) {
                        known.deleted_for = Some(token);
                        self.finish_delete(container);
                    } else {
                        self.reply(token, Ok(Answer::Deleted(None)));
                    }
                }
            },
        }
    }

    fn exec_started(&mut self, token: u64, key: u64, pid: i32) {
        let connected = self.connections.contains_key(&token);
        let mut mode = Mode::Done;
        if let Some(process) = self.processes.get_mut(&key)
            && process.streamed
        {
            process.pid = pid;
            if connected {
                process.attached.push(token);
                mode = Mode::Streams(Streams { process: key, stdin: true, stdout: true, stderr: true });
            } else {
                // The client is gone already: as if it had hung up right after.
                self.close_input(key);
            }
        }
        // The reply before the exit that may be waiting.
        self.send_reply(token, Ok(Answer::Pid(pid)), mode);
        self.hold_outputs(key);
        self.adopt(key, pid);
    }

    /// A process has its pid; perhaps it has ended already.
    fn adopt(&mut self, key: u64, pid: i32) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.pid = pid;
        }
        match self.early.remove(&pid) {
            Some((status, at)) => self.process_ended(key, status, at),
            None => self.send_pending(key),
        }
    }

    fn started(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let exit = self.processes.get(&container.init).and_then(|p| p.exit.as_ref());
        let time = exit.map_or_else(now, |exit| exit.finished_at);
        container.started_at = Some(time);
        if container.status == Status::Created {
            container.status = Status::Running;
        }
    }

    /// A create has failed: the runtime clears up what it left, then the request is refused.
    fn discard(&mut self, token: u64, id: &str, failure: Failure) {
        let container = self.containers.get(id);
        let runtime = container.map(|container| container.runtime.clone());
        self.remove_container(id);
        let Some(runtime) = runtime else { return };
        let limit = Duration::from_secs(10);
        let mut call = self.prepare(&runtime, "delete", limit, token);
        call.command.arg("--force").arg(id);
        let purpose = Purpose::Discard { failure: failure.clone() };
        if self.start_job(call, None, purpose).is_err() {
            self.reply(token, Err(failure));
        }
    }

    /// Answers a delete once the runtime has done it and the init has been reaped.
    pub(super) fn finish_delete(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let Some(token) = container.deleted_for else {
            return;
        };
        let (init, started) = (container.init, container.started_at.is_some());
        let Some(process) = self.processes.get(&init) else {
            return;
        };
        let Some(exit) = process.exit.clone() else {
            // A runtime has said that it deleted the container; its init cannot be left.
            let _ = children::signal(process.pid, libc::SIGKILL);
            return;
        };
        self.drain_outputs(init);
        self.announce(init);
        self.remove_container(id);
        self.reply(token, Ok(Answer::Deleted(started.then_some(exit))));
    }

    /// Forgets a container and its processes; their clients and waiters are told or hung up on.
    fn remove_container(&mut self, id: &str) {
        self.containers.remove(id);
        let processes = self.processes.iter();
        let keys: Vec<u64> =
            processes.filter(|(_, process)| process.container == id).map(|(key, _)| *key).collect();
        for key in keys {
            self.remove_process(key);
        }
    }

    pub(super) fn remove_process(&mut self, key: u64) {
        let Some(process) = self.processes.remove(&key) else {
            return;
        };
        let tokens = process.input.iter().map(|input| input.token);
        let outputs = process.outputs.iter().flatten();
        for token in tokens.chain(outputs.map(|output| output.token)) {
            self.forget(token);
        }
        for token in process.attached {
            self.hang_up(token);
        }
        for token in process.waiters {
            let failure = Failure::new(FailureCode::NotFound, "the process is gone");
            self.reply(token, Err(failure));
        }
        if let (Some(exec), Some(container)) = (process.exec, self.containers.get_mut(&process.container))
            && container.execs.get(&exec) == Some(&key)
        {
            container.execs.remove(&exec);
        }
    }

    fn running(&self, id: &str) -> Result<&Container, Failure> {
        self.find(id, None)?;
        self.containers.get(id).filter(|container| container.status == Status::Running).ok_or_else(|| {
            Failure::new(FailureCode::FailedPrecondition, format!("container {id} is not running"))
        })
    }
}

/// Reads the pid that the runtime has written.
fn read_pid(job: &Job) -> Result<i32, Failure> {
    let path = job.files.pid();
    let bad = |why: String| {
        Failure::new(
            FailureCode::Runtime,
            format!("the OCI runtime left no pid in {}: {why}", path.display()),
        )
    };
    let text = fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    let pid: i32 = text.trim().parse().map_err(|_| bad(text.clone()))?;
    if pid > 1 { Ok(pid) } else { Err(bad(text)) }
}

/// Ids become file names and arguments.
fn check_id(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if starts && id.len() <= 255 && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Failure::new(FailureCode::InvalidArgument, format!("{id:?} is not an id")))
}

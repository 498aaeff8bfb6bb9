//! Requests: which answers at once, which starts a call of the OCI runtime.

use std::io;

use super::connection::{Mode, Streams};
use super::event_loop::Shim;
use super::jobs::Purpose;
use super::journal::note;
use crate::kernel::{children, terminal};
use crate::protocol::{Answer, ExitRecord, Failure, FailureCode, Request, ShimState, Status, TerminalSize};

/// Done at once, with this result; or none when the answer comes later.
pub(super) type Outcome = Result<Option<Answer>, Failure>;

impl Shim {
    /// Acts on a request.
    pub(super) fn call(&mut self, token: u64, request: &[u8]) {
        let outcome = match serde_json::from_slice::<Request>(request) {
            Ok(request) => self.dispatch_request(token, request),
            Err(error) => Err(Failure::new(FailureCode::InvalidArgument, format!("request: {error}"))),
        };
        match outcome {
            Ok(Some(answer)) => self.reply(token, Ok(answer)),
            Ok(None) => {}
            Err(failure) => self.reply(token, Err(failure)),
        }
    }

    fn dispatch_request(&mut self, token: u64, request: Request) -> Outcome {
        let done = Ok(Some(Answer::Done));
        match request {
            Request::CreateSandbox(sandbox) => {
                let sandbox = self.create_sandbox(&sandbox)?;
                Ok(Some(Answer::Sandbox(sandbox)))
            }
            Request::ApplySysctls { sysctls } => {
                self.apply_sysctls(&sysctls)?;
                done
            }
            Request::CreateContainer(container) => self.create_container(token, &container),
            Request::Start { id } => self.start(token, &id),
            Request::Exec(exec) => self.exec(token, &exec),
            Request::Kill { id, exec, signal, all } => self.kill(token, &id, exec.as_deref(), signal, all),
            Request::Delete(container) => self.delete(token, &container),
            Request::DeleteExec { id, exec } => self.delete_exec(&id, &exec),
            Request::Pause { id } => self.pause(token, &id, true),
            Request::Resume { id } => self.pause(token, &id, false),
            Request::Update { id, resources } => self.update(token, &id, &resources),
            Request::State => Ok(Some(Answer::State(self.state()))),
            Request::Wait { id, exec } => self.wait(token, &id, exec.as_deref()),
            Request::Resize { id, exec, size } => {
                self.resize(&id, exec.as_deref(), size)?;
                done
            }
            Request::CloseStdin { id, exec } => {
                let key = self.find(&id, exec.as_deref())?;
                self.close_input(key);
                done
            }
            Request::ReopenLog { id } => {
                self.reopen_log(&id)?;
                done
            }
            Request::Attach { id, exec, stdin, stdout, stderr } => {
                let process = self.find(&id, exec.as_deref())?;
                let streams = Streams { process, stdin, stdout, stderr };
                self.attach(token, streams)
            }
            Request::Events => {
                let remembered = self.remembered();
                self.send_reply(token, Ok(Answer::Done), Mode::Events);
                if let Some(connection) = self.connections.get_mut(&token) {
                    for event in &remembered {
                        connection.send_message(event);
                    }
                    self.settle(token);
                }
                Ok(None)
            }
            Request::Shutdown => self.shutdown(),
        }
    }

    /// The process of a container or exec.
    pub(super) fn find(&self, id: &str, exec: Option<&str>) -> Result<u64, Failure> {
        let not_found = |message| Failure::new(FailureCode::NotFound, message);
        let container = self.containers.get(id);
        let container = container.ok_or_else(|| not_found(format!("no container {id}")))?;
        match exec {
            None => Ok(container.init),
            Some(exec) => {
                let key = container.execs.get(exec).copied();
                key.ok_or_else(|| not_found(format!("no exec {exec} in container {id}")))
            }
        }
    }

    fn state(&self) -> ShimState {
        let containers = self.containers.iter();
        ShimState {
            id: self.arguments.id.clone(),
            pid: std::process::id().cast_signed(),
            sandbox: self.sandbox.clone(),
            containers: containers.map(|(id, container)| container.state(id, &self.processes)).collect(),
        }
    }

    fn wait(&mut self, token: u64, id: &str, exec: Option<&str>) -> Outcome {
        let key = self.find(id, exec)?;
        let Some(process) = self.processes.get_mut(&key) else {
            return Ok(None);
        };
        if process.announced {
            return Ok(process.exit.clone().map(Answer::Exit));
        }
        process.waiters.push(token);
        Ok(None)
    }

    fn attach(&mut self, token: u64, streams: Streams) -> Outcome {
        let Some(process) = self.processes.get_mut(&streams.process) else {
            return Ok(None);
        };
        if process.announced || process.pid == 0 {
            return Err(Failure::new(FailureCode::FailedPrecondition, "the process is not running"));
        }
        process.attached.push(token);
        self.send_reply(token, Ok(Answer::Done), Mode::Streams(streams));
        Ok(None)
    }

    fn resize(&self, id: &str, exec: Option<&str>, size: TerminalSize) -> Result<(), Failure> {
        let key = self.find(id, exec)?;
        let process = self.processes.get(&key).filter(|process| process.tty);
        let Some(output) = process.and_then(|process| process.outputs[0].as_ref()) else {
            return Err(Failure::new(FailureCode::FailedPrecondition, "the process has no terminal"));
        };
        terminal::resize(&output.fd, size)
            .map_err(|error| Failure::new(FailureCode::Internal, format!("resize: {error}")))
    }

    fn reopen_log(&mut self, id: &str) -> Result<(), Failure> {
        let key = self.find(id, None)?;
        let log = self.processes.get_mut(&key).and_then(|p| p.log.as_mut());
        log.map_or(Ok(()), super::cri_log::CriLog::reopen)
            .map_err(|error| Failure::new(FailureCode::Internal, format!("reopen the log of {id}: {error}")))
    }

    fn kill(&mut self, token: u64, id: &str, exec: Option<&str>, signal: i32, all: bool) -> Outcome {
        let key = self.find(id, exec)?;
        let ended = || Failure::new(FailureCode::NotFound, "the process has ended already");
        let alive = self.processes.get(&key).filter(|process| process.pid > 0 && process.exit.is_none());
        let pid = alive.map(|process| process.pid);
        let through_runtime = self.containers.get(id).is_some_and(|container| {
            exec.is_none() && (all || container.runtime.opaque) && container.status != Status::Creating
        });
        if through_runtime && (all || pid.is_some()) {
            let arguments = [all.then_some("--all"), Some(id)];
            let signal = signal.to_string();
            let arguments = arguments.into_iter().flatten().chain([signal.as_str()]);
            return self.simple_call(token, id, "kill", arguments, Purpose::Signal);
        }
        let starting = self.processes.get_mut(&key).filter(|process| process.pid == 0 && exec.is_some());
        if let Some(process) = starting {
            // Still on its way into the container; it gets the signal when it is there.
            process.doomed = Some((signal, all));
            return Ok(Some(Answer::Done));
        }
        let pid = pid.ok_or_else(ended)?;
        match send(pid, signal, all) {
            Ok(()) => Ok(Some(Answer::Done)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(ended()),
            Err(error) => {
                Err(Failure::new(FailureCode::Internal, format!("signal {signal} to {pid}: {error}")))
            }
        }
    }

    /// An exec has its pid: what was to be sent to it is.
    pub(super) fn send_pending(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if let Some((signal, all)) = process.doomed.take()
            && process.exit.is_none()
            && let Err(error) = send(process.pid, signal, all)
        {
            note(format_args!("signal {signal} to an exec that has just started: {error}"));
        }
    }

    fn delete_exec(&mut self, id: &str, exec: &str) -> Outcome {
        let key = self.find(id, Some(exec))?;
        let process = self.processes.get(&key).filter(|p| p.announced);
        let exit: Option<ExitRecord> = process.and_then(|process| process.exit.clone());
        let Some(exit) = exit else {
            return Err(Failure::new(FailureCode::FailedPrecondition, format!("exec {exec} is running")));
        };
        if let Some(container) = self.containers.get_mut(id) {
            container.execs.remove(exec);
        }
        self.forget_exec_if_done(key);
        Ok(Some(Answer::Exit(exit)))
    }

    fn shutdown(&mut self) -> Outcome {
        let containers = self.containers.len() + self.jobs.len();
        if containers > 0 {
            return Err(Failure::new(
                FailureCode::FailedPrecondition,
                format!("{containers} containers or calls are left"),
            ));
        }
        self.remove_sandbox();
        self.stopping = true;
        Ok(Some(Answer::Done))
    }
}

/// Signals a child that has not been reaped, with `all` its descendants too.
fn send(pid: i32, signal: i32, all: bool) -> io::Result<()> {
    if all {
        // An exec leads a session and a group of its own; children may have left both.
        for child in children::descendants(pid) {
            let _ = children::signal(child, signal);
        }
        let _ = children::signal(-pid, signal);
    }
    children::signal(pid, signal)
}

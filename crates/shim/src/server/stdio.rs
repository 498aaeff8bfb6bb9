//! A process's stdin, stdout and stderr: pipes, or a terminal that the OCI runtime makes and sends.
//!
//! The shim keeps the ends that do not block; the process gets ordinary ones. Everything is close-on-exec.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::container::{Input, Output};
use super::cri_log::Stream;
use super::event_loop::{Shim, Source};
use super::journal::note;
use crate::kernel::terminal;

/// What the OCI runtime is started with, and the process inherits.
pub(super) struct ChildStdio {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Shim {
    /// Pipes for a process without a terminal.
    pub(super) fn open_pipes(&mut self, key: u64, stdin: bool) -> io::Result<ChildStdio> {
        let (out_read, out_write) = io::pipe()?;
        let (err_read, err_write) = io::pipe()?;
        let child_stdin = if stdin {
            let (read, write) = io::pipe()?;
            self.set_input(key, write.into())?;
            OwnedFd::from(read)
        } else {
            null()?.into()
        };
        self.set_output(key, Stream::Stdout, out_read.into())?;
        self.set_output(key, Stream::Stderr, err_read.into())?;
        Ok(ChildStdio { stdin: child_stdin, stdout: out_write.into(), stderr: err_write.into() })
    }

    /// The terminal of a process, as the runtime sent it.
    pub(super) fn set_terminal(&mut self, key: u64, master: OwnedFd, stdin: bool) -> io::Result<()> {
        if stdin {
            self.set_input(key, master.try_clone()?)?;
        }
        self.set_output(key, Stream::Stdout, master)
    }

    fn set_input(&mut self, key: u64, fd: OwnedFd) -> io::Result<()> {
        nonblocking(&fd)?;
        let token = self.token(Source::Input(key));
        if let Some(process) = self.processes.get_mut(&key) {
            process.input = Some(Input { fd, token, queue: VecDeque::new(), closing: false, watched: false });
        }
        Ok(())
    }

    fn set_output(&mut self, key: u64, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        nonblocking(&fd)?;
        let token = self.token(Source::Output(key, stream));
        Self::watch(&self.epoll, &fd, token, false);
        if let Some(process) = self.processes.get_mut(&key) {
            process.outputs[stream.index()] = Some(Output { fd, token, held: false });
        }
        self.hold_outputs(key);
        Ok(())
    }

    /// The runtime has connected to a job's console socket: takes the terminal from it.
    pub(super) fn on_console(&mut self, job: i32) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let Some(console) = job.console.take() else {
            return;
        };
        let accepted = match console.listener.accept() {
            Ok((connection, _)) => terminal::receive_master(&connection),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                job.console = Some(console);
                return;
            }
            Err(error) => Err(error),
        };
        let (key, stdin, token) = (console.process, console.stdin, console.token);
        drop(console);
        self.forget(token);
        if let Err(error) = accepted.and_then(|master| self.set_terminal(key, master, stdin)) {
            note(format_args!("receive a terminal: {error}"));
        }
    }
}

/// `/dev/null`, for whoever needs no stdio.
pub(super) fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

pub(super) fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

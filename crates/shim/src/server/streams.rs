//! Between connections and processes: output to logs and clients, stdin from clients.
//!
//! Who waits for whom: a container never waits for a client (one that is too far behind is hung up
//! on); an exec waits for the client that holds its streams; a client that sends stdin waits for the process.

use std::io;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::connection::{Arrival, EXEC_WINDOW, MAX_BEHIND, Mode, Streams, temporary};
use super::cri_log::Stream;
use super::event_loop::Shim;
use super::exits::DRAIN_TIME;
use crate::kernel::terminal;
use crate::protocol::{Answer, Failure, FailureCode, FrameKind, Reply, TerminalSize};

/// A client's stdin is not read while the process is this many bytes behind.
const STDIN_WINDOW: usize = 64 << 10;
/// An output is read this often in a row before others get their turn.
const DRAIN_ROUNDS: usize = 64;

impl Shim {
    pub(super) fn on_connection(&mut self, token: u64, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        if flags.contains(EventFlags::IN) && connection.wants().0 {
            let ended = connection.fill(&mut self.buffer) == Arrival::End;
            self.take_input(token);
            if ended {
                let streaming = self.connections.get_mut(&token);
                let streaming = streaming.filter(|c| matches!(c.mode, Mode::Streams(_)));
                let Some(connection) = streaming.filter(|_| !flags.contains(EventFlags::HUP)) else {
                    self.hang_up(token);
                    return;
                };
                // Only the client's sending half is closed: it still reads. Its end will be a HUP.
                connection.held = true;
                connection.ended = true;
            }
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.hang_up(token);
            return;
        }
        self.settle(token);
    }

    /// Acts on what a connection has read.
    pub(super) fn take_input(&mut self, token: u64) {
        while let Some(connection) = self.connections.get_mut(&token) {
            match connection.mode {
                Mode::Request => match connection.take_request() {
                    Ok(None) => return,
                    Ok(Some(request)) => {
                        connection.mode = Mode::Busy;
                        connection.held = true;
                        self.call(token, &request);
                    }
                    Err(message) => {
                        let failure = Failure::new(FailureCode::InvalidArgument, message);
                        self.reply(token, Err(failure));
                        return;
                    }
                },
                Mode::Streams(streams) if !connection.held => match connection.take_frame() {
                    Ok(None) => return,
                    Ok(Some((kind, payload))) => self.take_frame(token, streams, kind, &payload),
                    Err(_) => {
                        self.hang_up(token);
                        return;
                    }
                },
                _ => return,
            }
        }
    }

    fn take_frame(&mut self, token: u64, streams: Streams, kind: FrameKind, payload: &[u8]) {
        let Some(process) = self.processes.get_mut(&streams.process) else {
            return;
        };
        match (kind, payload) {
            (FrameKind::Stdin, bytes) if streams.stdin => {
                if let Some(input) = &mut process.input
                    && !input.closing
                {
                    input.queue.extend(bytes);
                    self.pump_input(streams.process);
                    self.hold_for_stdin(token, streams.process);
                }
            }
            (FrameKind::StdinClose, _) if streams.stdin => self.end_of_stdin(streams.process),
            (FrameKind::Resize, &[w0, w1, h0, h1]) => {
                let size = TerminalSize {
                    width: u16::from_le_bytes([w0, w1]),
                    height: u16::from_le_bytes([h0, h1]),
                };
                if let (true, Some(output)) = (process.tty, &process.outputs[0]) {
                    let _ = terminal::resize(&output.fd, size);
                }
            }
            _ => {}
        }
    }

    fn hold_for_stdin(&mut self, token: u64, process: u64) {
        let behind = |input: &super::container::Input| input.queue.len() > STDIN_WINDOW;
        let process = self.processes.get(&process);
        let held = process.is_some_and(|p| p.input.as_ref().is_some_and(behind));
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.held = held;
        }
    }

    /// A session's stdin is over: an exec's is closed, a container's only with `stdin_once`.
    fn end_of_stdin(&mut self, process: u64) {
        let once = self.processes.get(&process);
        if once.is_some_and(|process| process.exec.is_some() || process.stdin_once) {
            self.close_input(process);
        }
    }

    /// Closes a process's stdin once it has taken what is queued.
    pub(super) fn close_input(&mut self, process: u64) {
        if let Some(process) = self.processes.get_mut(&process)
            && let Some(input) = &mut process.input
        {
            input.closing = true;
        }
        self.pump_input(process);
    }

    /// Writes queued stdin as far as the process takes it.
    pub(super) fn pump_input(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(input) = &mut process.input else {
            return;
        };
        let mut gone = false;
        while !input.queue.is_empty() {
            let (front, _) = input.queue.as_slices();
            match rustix::io::write(&input.fd, front).map_err(io::Error::from) {
                Ok(count) => drop(input.queue.drain(..count)),
                Err(error) if temporary(&error) => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let watched = !input.queue.is_empty() && !gone;
        let closed = gone || (input.closing && input.queue.is_empty());
        let (token, was_watched) = (input.token, input.watched);
        let roomy = input.queue.len() <= STDIN_WINDOW || closed;
        input.watched = watched;
        let attached = process.attached.clone();
        let taken = if closed { process.input.take() } else { None };
        if taken.is_some() {
            self.forget(token);
        } else if let Some(input) = self.processes.get(&key).and_then(|p| p.input.as_ref())
            && watched != was_watched
        {
            if watched {
                Self::watch(&self.epoll, &input.fd, token, true);
            } else {
                Self::unwatch(&self.epoll, &input.fd);
            }
        }
        drop(taken);
        if roomy {
            for token in attached {
                let connection = self.connections.get_mut(&token);
                if connection.is_some_and(|c| std::mem::replace(&mut c.held, false)) {
                    self.take_input(token);
                    self.settle(token);
                }
            }
        }
    }

    pub(super) fn on_output(&mut self, key: u64, stream: Stream) {
        self.read_output(key, stream);
        self.conclude(key);
    }

    /// Reads one buffer of an output; false when there is no more for now.
    fn read_output(&mut self, key: u64, stream: Stream) -> bool {
        let Some(process) = self.processes.get_mut(&key) else {
            return false;
        };
        let Some(output) = &mut process.outputs[stream.index()] else {
            return false;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = rustix::io::read(&output.fd, &mut buffer[..]).map_err(io::Error::from);
        let more = match result {
            Ok(count) if count > 0 => {
                self.deliver(key, stream, &buffer[..count]);
                true
            }
            Err(error) if temporary(&error) => false,
            // The end: 0 from a pipe, EIO from a terminal that nobody has open any more.
            _ => {
                self.end_output(key, stream);
                false
            }
        };
        self.buffer = buffer;
        more
    }

    fn deliver(&mut self, key: u64, stream: Stream, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if let Some(log) = &mut process.log {
            log.write(stream, bytes);
        }
        let kind = match stream {
            Stream::Stdout => FrameKind::Stdout,
            Stream::Stderr => FrameKind::Stderr,
        };
        for token in process.attached.clone() {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            if let Mode::Streams(streams) = connection.mode
                && [streams.stdout, streams.stderr][stream.index()]
            {
                connection.send_frame(kind, bytes);
                self.settle(token);
            }
        }
        self.hold_outputs(key);
    }

    /// Stops or goes on reading an exec's outputs, as its client keeps up.
    pub(super) fn hold_outputs(&mut self, key: u64) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        // Until the runtime has told its pid, its client is not told either and cannot be sent output.
        let hold = process.streamed
            && (process.pid == 0
                || process.attached.iter().any(|token| {
                    let connection = self.connections.get(token);
                    connection.is_some_and(|connection| connection.behind() > EXEC_WINDOW)
                }));
        for output in process.outputs.iter_mut().flatten() {
            if output.held == hold {
                continue;
            }
            output.held = hold;
            // Taken out of epoll altogether: a pipe that was hung up would be reported whatever is asked.
            if hold {
                Self::unwatch(&self.epoll, &output.fd);
            } else {
                Self::watch(&self.epoll, &output.fd, output.token, false);
            }
        }
    }

    /// Closes what is left of an exec's outputs after its end was told: a process that it left behind holds the other
    /// end, perhaps for ever, and nobody hears what it writes.
    fn close_exec_outputs(&mut self, key: u64) {
        if self.processes.get(&key).is_none_or(|process| process.exec.is_none()) {
            return;
        }
        self.end_output(key, Stream::Stdout);
        self.end_output(key, Stream::Stderr);
        self.forget_exec_if_done(key);
    }

    fn end_output(&mut self, key: u64, stream: Stream) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if let Some(log) = &mut process.log {
            log.end(stream);
        }
        if let Some(output) = process.outputs[stream.index()].take() {
            // A terminal's input is the same open file: closing this descriptor would not take it out of epoll.
            Self::unwatch(&self.epoll, &output.fd);
            self.forget(output.token);
        }
    }

    /// Reads what the outputs hold now; true when they have ended.
    pub(super) fn drain_outputs(&mut self, key: u64) -> bool {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..DRAIN_ROUNDS {
                let held = self.processes.get(&key).is_none_or(|process| {
                    let output = &process.outputs[stream.index()];
                    output.as_ref().is_none_or(|output| output.held)
                });
                if held || !self.read_output(key, stream) {
                    break;
                }
            }
        }
        self.processes.get(&key).is_none_or(super::container::Process::drained)
    }

    pub(super) fn expire_drains(&mut self, now: Instant) {
        let due = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let keys: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, process)| due(process.drain_until))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let drained = self.drain_outputs(key);
            let Some(process) = self.processes.get_mut(&key) else {
                continue;
            };
            let waits = process.outputs.iter().flatten().any(|output| output.held);
            if waits && !drained && !process.attached.is_empty() {
                process.drain_until = Some(now + DRAIN_TIME);
            } else {
                process.drain_until = None;
                self.announce(key);
                self.close_exec_outputs(key);
            }
        }
    }

    // Connections.

    /// Writes what a connection has to say; hangs up on one that is gone, done or too far behind.
    pub(super) fn settle(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let alive = connection.flush();
        let behind = connection.behind();
        let done = connection.mode == Mode::Done && behind == 0;
        let process = match connection.mode {
            Mode::Streams(streams) => Some(streams.process),
            _ => None,
        };
        let patient = process.and_then(|key| self.processes.get(&key)).is_none_or(|process| process.streamed);
        let lost = behind > MAX_BEHIND
            && !(patient && process.is_some())
            && self
                .connections
                .get(&token)
                .is_some_and(|c| matches!(c.mode, Mode::Streams(_) | Mode::Events));
        if !alive || done || lost {
            self.hang_up(token);
            return;
        }
        self.rearm(token);
        if let Some(key) = process
            && behind <= EXEC_WINDOW / 2
        {
            self.hold_outputs(key);
        }
    }

    /// Closes a connection and ends what hung on it.
    pub(super) fn hang_up(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        self.forget(token);
        if let Mode::Streams(streams) = connection.mode
            && let Some(process) = self.processes.get_mut(&streams.process)
        {
            process.attached.retain(|attached| *attached != token);
            self.hold_outputs(streams.process);
            if streams.stdin {
                self.end_of_stdin(streams.process);
            }
        }
    }

    /// Answers a request; the connection is closed when the client has it.
    pub(super) fn reply(&mut self, token: u64, result: Result<Answer, Failure>) {
        self.send_reply(token, result, Mode::Done);
    }

    /// Answers a request; the connection goes on as `mode`.
    pub(super) fn send_reply(&mut self, token: u64, result: Result<Answer, Failure>, mode: Mode) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let streams = matches!(mode, Mode::Streams(_));
        connection.mode = mode;
        connection.held = !streams;
        connection.send_message(&match result {
            Ok(answer) => Reply::Ok(answer),
            Err(failure) => Reply::Err(failure),
        });
        self.settle(token);
        if streams {
            self.take_input(token);
            self.settle(token);
        }
    }
}

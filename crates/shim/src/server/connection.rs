//! A client's connection: bytes in until they make a message, bytes out as far as the client takes them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::Serialize;

use crate::protocol::{FrameKind, MAX_FRAME, MAX_REQUEST};

/// More unread output than this, and a client is hung up on: nothing waits for it.
pub(super) const MAX_BEHIND: usize = 1 << 20;
/// An exec's output is not read while its client is this far behind: the process waits instead.
pub(super) const EXEC_WINDOW: usize = 128 << 10;

/// What a connection is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its request has not been read yet; moves on when it has.
    Request,
    /// Its request is being worked on; moves on with the reply.
    Busy,
    /// It carries a process's streams until that ends.
    Streams(Streams),
    /// It hears of exits until it hangs up.
    Events,
    /// Its reply is on the way, then it is closed.
    Done,
}

/// Which streams of which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) process: u64,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    pub(super) mode: Mode,
    /// Not read from: the process does not take its stdin.
    pub(super) held: bool,
    /// The client sends nothing any more.
    pub(super) ended: bool,
    /// What epoll was told.
    pub(super) interest: (bool, bool),
    input: Vec<u8>,
    output: VecDeque<u8>,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Something was read, or nothing was there.
    Some,
    /// The client has hung up.
    End,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            mode: Mode::Request,
            held: false,
            ended: false,
            interest: (true, false),
            input: Vec::new(),
            output: VecDeque::new(),
        }
    }

    /// Reads what is there, at most one buffer.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Arrival {
        match self.socket.read(buffer) {
            Ok(0) => Arrival::End,
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Arrival::Some
            }
            Err(error) if temporary(&error) => Arrival::Some,
            Err(_) => Arrival::End,
        }
    }

    /// The whole request, once it is there.
    pub(super) fn take_request(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some((length, rest)) = self.input.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_REQUEST {
            return Err(format!("the request has {length} bytes, {MAX_REQUEST} are allowed"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let request = rest[..length].to_vec();
        self.consume(4 + length);
        Ok(Some(request))
    }

    /// The next whole frame, once it is there.
    pub(super) fn take_frame(&mut self) -> Result<Option<(FrameKind, Vec<u8>)>, String> {
        let Some(([kind, length @ ..], rest)) = self.input.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(format!("a frame of {length} bytes"));
        }
        let kind = FrameKind::from_byte(*kind).ok_or_else(|| format!("a frame of kind {kind}"))?;
        if rest.len() < length {
            return Ok(None);
        }
        let payload = rest[..length].to_vec();
        self.consume(5 + length);
        Ok(Some((kind, payload)))
    }

    /// Queues a length-prefixed message.
    pub(super) fn send_message(&mut self, message: &impl Serialize) {
        let Ok(body) = serde_json::to_vec(message) else {
            return;
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.output.extend(length.to_le_bytes());
        self.output.extend(body);
    }

    /// Queues a frame (or several, when the payload is larger than one may be).
    pub(super) fn send_frame(&mut self, kind: FrameKind, payload: &[u8]) {
        for chunk in payload.chunks(MAX_FRAME) {
            self.output.extend(kind.header(chunk.len()));
            self.output.extend(chunk);
        }
    }

    /// Writes what the client takes; false when it has hung up.
    pub(super) fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.socket.write(front) {
                Ok(0) => return false,
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if temporary(&error) => return true,
                Err(_) => return false,
            }
        }
        if self.output.capacity() > 8 << 10 {
            self.output = VecDeque::new();
        }
        true
    }

    /// How many bytes the client has not taken.
    pub(super) fn behind(&self) -> usize {
        self.output.len()
    }

    /// Whether epoll should watch for (reading, writing).
    pub(super) fn wants(&self) -> (bool, bool) {
        (!self.held && !self.ended, !self.output.is_empty())
    }

    fn consume(&mut self, count: usize) {
        self.input.drain(..count);
        if self.input.is_empty() && self.input.capacity() > 8 << 10 {
            self.input = Vec::new();
        }
    }
}

pub(super) fn temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

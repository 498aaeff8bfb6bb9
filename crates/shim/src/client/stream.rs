//! What follows a reply: a process's streams as frames, or the shim's events.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Error, wire};
use crate::protocol::{Event, ExitRecord, FrameKind, MAX_FRAME, TerminalSize};

/// The streams of a container or exec. Dropping it hangs up; the process runs on.
#[derive(Debug)]
pub struct AttachStream {
    /// Towards the process.
    pub input: AttachInput,
    /// From the process.
    pub output: AttachOutput,
    /// The exec's process on the host; none for an attach.
    pub pid: Option<i32>,
}

/// Towards a process: stdin, terminal sizes. Dropping it alone does **not** close the process's stdin
/// (the output half may still be read): [`AttachInput::close`] does.
#[derive(Debug)]
pub struct AttachInput(OwnedWriteHalf);

/// From a process: output, then how it ended.
#[derive(Debug)]
pub struct AttachOutput(OwnedReadHalf);

/// Something that came from a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes of stdout, or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of stderr.
    Stderr(Vec<u8>),
    /// It has ended and all its output has been delivered: the last item.
    Exit(ExitRecord),
}

impl AttachStream {
    pub(super) fn new(connection: UnixStream, pid: Option<i32>) -> Self {
        let (read, write) = connection.into_split();
        Self { input: AttachInput(write), output: AttachOutput(read), pid }
    }

    /// Both halves, for two tasks.
    #[must_use]
    pub fn into_split(self) -> (AttachInput, AttachOutput) {
        (self.input, self.output)
    }
}

impl AttachInput {
    /// Sends bytes to the process's stdin; waits while the process does not take them. Not cancel-safe.
    ///
    /// # Errors
    /// When the shim has hung up (the process has ended).
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(MAX_FRAME) {
            self.frame(FrameKind::Stdin, chunk).await?;
        }
        Ok(())
    }

    /// Sets the terminal's size; without a terminal nothing happens.
    ///
    /// # Errors
    /// When the shim has hung up.
    pub async fn resize(&mut self, size: TerminalSize) -> io::Result<()> {
        let [w0, w1] = size.width.to_le_bytes();
        let [h0, h1] = size.height.to_le_bytes();
        self.frame(FrameKind::Resize, &[w0, w1, h0, h1]).await
    }

    /// Ends this session's stdin. An exec's stdin is closed; a container's only with `stdin_once`.
    ///
    /// # Errors
    /// When the shim has hung up.
    pub async fn close(&mut self) -> io::Result<()> {
        self.frame(FrameKind::StdinClose, &[]).await
    }

    async fn frame(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.extend_from_slice(&kind.header(payload.len()));
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await
    }
}

impl AttachOutput {
    /// The next piece of output; none when the shim hung up (also: it died, or dropped a slow reader).
    /// Not cancel-safe: give it a task of its own or keep the future.
    ///
    /// # Errors
    /// A broken connection or a frame that makes no sense.
    pub async fn next(&mut self) -> io::Result<Option<Output>> {
        let mut header = [0; 5];
        match self.0.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
        let [kind, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        if length > MAX_FRAME {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        match FrameKind::from_byte(kind) {
            Some(FrameKind::Stdout) => Ok(Some(Output::Stdout(payload))),
            Some(FrameKind::Stderr) => Ok(Some(Output::Stderr(payload))),
            Some(FrameKind::Exit) => serde_json::from_slice(&payload)
                .map(|exit| Some(Output::Exit(exit)))
                .map_err(|error| invalid(error.to_string())),
            _ => Err(invalid(format!("a frame of kind {kind}"))),
        }
    }
}

/// The shim's events.
#[derive(Debug)]
pub struct Events(UnixStream);

impl Events {
    pub(super) fn new(connection: UnixStream) -> Self {
        Self(connection)
    }

    /// The next event; none when the shim has ended or died. Not cancel-safe.
    ///
    /// # Errors
    /// A broken connection or an event that makes no sense.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        let call = "events";
        let message =
            wire::read_message(&mut self.0).await.map_err(|source| Error::Connection { call, source })?;
        let Some(message) = message else {
            return Ok(None);
        };
        serde_json::from_slice(&message)
            .map(Some)
            .map_err(|error| Error::Protocol { call, message: error.to_string() })
    }
}

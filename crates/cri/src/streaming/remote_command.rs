//! Exec and attach over SPDY: one SPDY stream per standard stream, told apart by the `streamtype` header.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::spdy::{Session, Stream};
use super::status::{self, ErrorFormat};
use super::{Io, StreamError, StreamingRuntime, Streams, TerminalSize};
use crate::v1;

/// How long a client has to open its streams, as upstream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// One size in JSON is about 30 bytes.
const MAX_RESIZE: usize = 4096;

/// The process a client wants to talk to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A new process.
    Exec(v1::ExecRequest),
    /// The container's own.
    Attach(v1::AttachRequest),
}

/// Which streams the request asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Target {
    pub(super) fn wanted(&self) -> Wanted {
        let (stdin, stdout, stderr, tty) = match self {
            Self::Exec(request) => (request.stdin, request.stdout, request.stderr, request.tty),
            Self::Attach(request) => (request.stdin, request.stdout, request.stderr, request.tty),
        };
        Wanted { stdin, stdout, stderr: stderr && !tty, tty }
    }

    /// Runs it to its end and gives what belongs on the error stream.
    pub(super) async fn run(
        self,
        runtime: &dyn StreamingRuntime,
        format: ErrorFormat,
        streams: Streams,
    ) -> Vec<u8> {
        match self {
            Self::Exec(request) => {
                let command = request.cmd.clone();
                status::exec_outcome(format, &command, &runtime.exec(request, streams).await)
            }
            Self::Attach(request) => status::attach_outcome(format, &runtime.attach(request, streams).await),
        }
    }
}

/// Serves one upgraded connection.
pub(super) async fn serve(
    io: Box<dyn Io>,
    runtime: Arc<dyn StreamingRuntime>,
    target: Target,
    format: ErrorFormat,
    protocol: Option<&'static str>,
) -> io::Result<()> {
    let mut session = Session::start(io, super::spdy::Role::Server)?;
    let wanted = target.wanted();
    // Terminal sizes came with the third version.
    let resizes =
        wanted.tty && protocol.is_some_and(|name| name.starts_with("v3.") || name.starts_with("v4."));
    let mut opened = tokio::time::timeout(OPEN_TIMEOUT, open(&mut session, wanted, resizes))
        .await
        .unwrap_or_else(|_| Opened {
            refusal: Some("timed out waiting for client to create streams".to_owned()),
            ..Opened::default()
        });
    if let Some(refusal) = opened.refusal {
        if let Some(mut error) = opened.error {
            error.write_all(&status::bad_request(format, &refusal)).await?;
            error.shutdown().await?;
        }
        session.close().await;
        return Err(io::Error::new(io::ErrorKind::InvalidInput, refusal));
    }
    let (resize_sender, resize) = mpsc::channel(4);
    let resizing = opened.resize.take().map(|stream| tokio::spawn(read_sizes(stream, resize_sender)));
    let streams = Streams {
        stdin: opened.stdin.map(|stream| Box::new(stream) as super::Reader),
        stdout: opened.stdout.map(|stream| Box::new(stream) as super::Writer),
        stderr: opened.stderr.map(|stream| Box::new(stream) as super::Writer),
        resize,
    };
    let outcome = tokio::select! {
        outcome = target.run(&*runtime, format, streams) => outcome,
        // The client is gone: nobody is left to serve.
        () = session.ended() => Vec::new(),
    };
    if let Some(mut error) = opened.error {
        // The client may be gone: that is how most attaches end.
        let _ = error.write_all(&outcome).await;
        let _ = error.shutdown().await;
    }
    if let Some(resizing) = resizing {
        resizing.abort();
    }
    session.close().await;
    Ok(())
}

#[derive(Debug, Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
    refusal: Option<String>,
}

impl Opened {
    fn complete(&self, wanted: Wanted, resizes: bool) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= wanted.stdin
            && self.stdout.is_some() >= wanted.stdout
            && self.stderr.is_some() >= wanted.stderr
            && self.resize.is_some() >= resizes
    }
}

/// Accepts streams until those that the request asked for are there.
async fn open(session: &mut Session, wanted: Wanted, resizes: bool) -> Opened {
    let mut opened = Opened::default();
    while !opened.complete(wanted, resizes) {
        let Some(stream) = session.accept().await else {
            opened.refusal = Some("the client closed the connection before it opened its streams".to_owned());
            break;
        };
        let slot = match stream.header("streamtype") {
            Some("error") => &mut opened.error,
            Some("stdin") => &mut opened.stdin,
            Some("stdout") => &mut opened.stdout,
            Some("stderr") => &mut opened.stderr,
            Some("resize") => &mut opened.resize,
            other => {
                opened.refusal = Some(format!("unexpected stream type: {:?}", other.unwrap_or_default()));
                break;
            }
        };
        *slot = Some(stream);
    }
    opened
}

/// Reads JSON terminal sizes, one after the other, until the stream ends.
async fn read_sizes(mut stream: Stream, sizes: mpsc::Sender<TerminalSize>) {
    let mut sizes = Sizes { buffer: Vec::new(), sender: sizes };
    let mut chunk = [0u8; 512];
    while let Ok(count) = stream.read(&mut chunk).await {
        if count == 0 || sizes.feed(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

/// Splits a byte stream into terminal sizes.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) buffer: Vec<u8>,
    pub(super) sender: mpsc::Sender<TerminalSize>,
}

impl Sizes {
    /// Takes more bytes; an error ends the resizing, not the session.
    pub(super) async fn feed(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if self.buffer.len() + bytes.len() > MAX_RESIZE {
            return Err(StreamError::new("terminal size is too long"));
        }
        self.buffer.extend_from_slice(bytes);
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<TerminalSize>();
        let mut parsed = Vec::new();
        for value in &mut values {
            match value {
                Ok(size) => parsed.push(size),
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(StreamError::new(format!("bad terminal size: {error}"))),
            }
        }
        let used = values.byte_offset();
        self.buffer.drain(..used.min(self.buffer.len()));
        for size in parsed {
            // Nobody listens when the process has no terminal.
            let _ = self.sender.send(size).await;
        }
        Ok(())
    }
}

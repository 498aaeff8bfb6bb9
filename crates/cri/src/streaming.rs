//! Exec, attach and port-forward as byte streams: the part of CRI that is not gRPC.
//!
//! The runtime answers `Exec` with a URL; the kubelet connects there and upgrades the connection to WebSocket
//! (`v5.channel.k8s.io` and older) or SPDY/3.1 (`v4.channel.k8s.io` and older). This module holds the server of
//! those URLs and both protocols; what a stream is connected to is behind [`StreamingRuntime`].

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::v1;

mod idle;
mod negotiate;
mod port_forward;
mod remote_command;
mod server;
pub mod spdy;
mod status;
mod tokens;
mod websocket;

pub use server::{Config, Server};
pub use websocket::Tunnel;

/// A byte stream to read from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A byte stream to write to; shut down when nothing more comes.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width", default)]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height", default)]
    pub height: u16,
}

/// The client's ends of a process's streams; those it did not ask for are `None`.
pub struct Streams {
    /// Ends (reads 0) when the client closes its side or the connection is lost.
    pub stdin: Option<Reader>,
    /// Everything of a terminal comes here.
    pub stdout: Option<Writer>,
    /// Never with a terminal.
    pub stderr: Option<Writer>,
    /// Sizes of the client's terminal; empty without one.
    pub resize: mpsc::Receiver<TerminalSize>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, 128 + signal for a killed process.
    pub code: i32,
}

/// Why a stream could not be served; the text reaches the person at the terminal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StreamError {
    /// What failed.
    pub message: String,
}

impl StreamError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// What the streaming server connects clients to.
#[tonic::async_trait]
pub trait StreamingRuntime: Send + Sync + 'static {
    /// Runs the request's command in the container until it ends and its output has been written.
    async fn exec(&self, request: v1::ExecRequest, streams: Streams) -> Result<ExitStatus, StreamError>;

    /// Connects to the container's main process until it ends or the client goes. The exit status is not
    /// reported to the client.
    async fn attach(&self, request: v1::AttachRequest, streams: Streams) -> Result<(), StreamError>;

    /// Copies between `stream` and a TCP port inside the sandbox until both sides are done.
    async fn port_forward(&self, sandbox: &str, port: u16, stream: Box<dyn Io>) -> Result<(), StreamError>;
}

//! Exec, attach and port-forward over WebSocket. Each message begins with the number of its channel; with a
//! `base64` protocol the number is a digit and the rest is base64 in a text message.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

mod channel;
mod ports;
mod tunnel;

pub(super) use ports::serve as serve_ports;
pub use tunnel::Tunnel;

use super::remote_command::{Sizes, Target};
use super::status::ErrorFormat;
use super::{Io, StreamingRuntime, Streams};
use channel::ChannelWriter;

type Socket = WebSocketStream<Box<dyn Io>>;

/// kubectl's messages are at most 32 KiB; others send up to what fits here.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Messages waiting to be written.
const SEND_QUEUE: usize = 16;
/// What a process has not read of its stdin yet; then the client has to wait.
const STDIN_BUFFER: usize = 64 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte is the channel that the client closes.
const CLOSE: u8 = 255;

/// How a protocol writes its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    pub(super) fn of(protocol: Option<&str>) -> Self {
        if protocol.is_some_and(|name| name.contains("base64.")) { Self::Base64 } else { Self::Binary }
    }

    fn message(self, channel: u8, payload: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut bytes = Vec::with_capacity(payload.len() + 1);
                bytes.push(channel);
                bytes.extend_from_slice(payload);
                Message::Binary(bytes.into())
            }
            Self::Base64 => Message::Text(format!("{channel}{}", BASE64.encode(payload)).into()),
        }
    }

    /// The channel and payload of a message; `None` for one that makes no sense.
    fn parse(self, message: Message) -> Option<(u8, Bytes)> {
        match self {
            Self::Base64 => {
                let text = message.into_text().ok()?;
                let digit = *text.as_bytes().first()?;
                let payload = BASE64.decode(text.get(1..)?).ok()?;
                digit.is_ascii_digit().then(|| (digit - b'0', payload.into()))
            }
            Self::Binary => {
                let mut bytes = message.into_data();
                (!bytes.is_empty()).then(|| (bytes.split_to(1)[0], bytes))
            }
        }
    }
}

/// Takes over a connection after the 101 response.
pub(super) async fn accept(io: Box<dyn Io>) -> Socket {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Serves exec or attach on one upgraded connection.
pub(super) async fn serve(
    io: Box<dyn Io>,
    runtime: Arc<dyn StreamingRuntime>,
    target: Target,
    format: ErrorFormat,
    protocol: Option<&'static str>,
) -> io::Result<()> {
    let encoding = Encoding::of(protocol);
    let (sink, source) = accept(io).await.split();
    let (sender, messages) = mpsc::channel(SEND_QUEUE);
    let writer = tokio::spawn(write_messages(sink, messages));
    let wanted = target.wanted();

    // An empty message tells the client that the connection stands before any output.
    let ready = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = sender.send(encoding.message(ready, &[])).await;

    let (stdin_far, stdin) = tokio::io::duplex(STDIN_BUFFER);
    let (_, stdin_far) = tokio::io::split(stdin_far);
    let (resize_sender, resize) = mpsc::channel(4);
    let sizes = Sizes { buffer: Vec::new(), sender: resize_sender };
    let reader = tokio::spawn(read_messages(
        source,
        encoding,
        wanted.stdin.then_some(stdin_far),
        wanted.tty.then_some(sizes),
        sender.clone(),
    ));
    let output =
        |channel: u8| Box::new(ChannelWriter::new(channel, encoding, sender.clone())) as super::Writer;
    let streams = Streams {
        stdin: wanted.stdin.then(|| Box::new(stdin) as super::Reader),
        stdout: wanted.stdout.then(|| output(STDOUT)),
        stderr: wanted.stderr.then(|| output(STDERR)),
        resize,
    };
    let mut reader = reader;
    let outcome = tokio::select! {
        outcome = target.run(&*runtime, format, streams) => outcome,
        // The client is gone: nobody is left to serve.
        _ = &mut reader => Vec::new(),
    };
    if !outcome.is_empty() {
        let _ = sender.send(encoding.message(ERROR, &outcome)).await;
    }
    let _ = sender.send(normal_close()).await;
    drop(sender);
    finish(writer, reader).await
}

/// Waits until everything is written and the client has answered the close, but not for ever.
async fn finish(
    writer: tokio::task::JoinHandle<Result<(), Error>>,
    reader: tokio::task::JoinHandle<()>,
) -> io::Result<()> {
    let linger = std::time::Duration::from_secs(5);
    if !reader.is_finished() {
        let reader_abort = reader.abort_handle();
        let _ = tokio::time::timeout(linger, reader).await;
        reader_abort.abort();
    }
    let writer_abort = writer.abort_handle();
    let _ = tokio::time::timeout(linger, writer).await;
    writer_abort.abort();
    Ok(())
}

fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

async fn write_messages(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<Message>,
) -> Result<(), Error> {
    while let Some(message) = messages.recv().await {
        let last = matches!(message, Message::Close(_));
        sink.feed(message).await?;
        // Flush once per burst.
        while let Ok(message) = messages.try_recv() {
            sink.feed(message).await?;
        }
        sink.flush().await?;
        if last {
            break;
        }
    }
    Ok(())
}

/// Hands on what the client sends until it closes; then stdin ends.
async fn read_messages(
    mut source: SplitStream<Socket>,
    encoding: Encoding,
    mut stdin: Option<WriteHalf<tokio::io::DuplexStream>>,
    mut sizes: Option<Sizes>,
    sender: mpsc::Sender<Message>,
) {
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Ping(payload) => {
                let _ = sender.send(Message::Pong(payload)).await;
                continue;
            }
            Message::Close(_) => break,
            Message::Pong(_) | Message::Frame(_) => continue,
            Message::Text(_) | Message::Binary(_) => {}
        }
        let Some((channel, payload)) = encoding.parse(message) else { continue };
        match channel {
            STDIN => {
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&payload).await.is_err()
                {
                    // The process closed its stdin or ended; the rest is nobody's.
                    stdin = None;
                }
            }
            RESIZE => {
                if let Some(reader) = &mut sizes
                    && reader.feed(&payload).await.is_err()
                {
                    sizes = None;
                }
            }
            CLOSE if payload.first() == Some(&STDIN) => {
                if let Some(mut pipe) = stdin.take() {
                    let _ = pipe.shutdown().await;
                }
            }
            _ => {}
        }
    }
    if let Some(mut pipe) = stdin.take() {
        let _ = pipe.shutdown().await;
    }
}

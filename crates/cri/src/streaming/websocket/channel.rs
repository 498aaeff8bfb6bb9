//! One output channel of a WebSocket connection as `AsyncWrite`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::PollSender;

use super::Encoding;

/// The size of kubectl's own buffers.
const MAX_PAYLOAD: usize = 32 * 1024;

/// Turns writes into messages; shutting down needs no message of its own.
pub(super) struct ChannelWriter {
    channel: u8,
    encoding: Encoding,
    messages: PollSender<Message>,
}

impl ChannelWriter {
    pub(super) fn new(channel: u8, encoding: Encoding, messages: mpsc::Sender<Message>) -> Self {
        Self { channel, encoding, messages: PollSender::new(messages) }
    }
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.messages.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let count = buf.len().min(MAX_PAYLOAD);
        let message = self.encoding.message(self.channel, &buf[..count]);
        self.messages.send_item(message).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.messages.close();
        Poll::Ready(Ok(()))
    }
}

//! One stream of a connection as `AsyncRead` and `AsyncWrite`. Shutting down closes our direction (FIN);
//! dropping it before that resets it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::frame::{CANCEL, CHUNK, Outgoing};
use super::{Headers, Window};

/// Consumed bytes after which the peer is told that it may send more.
const ACKNOWLEDGE: u32 = 32 * 1024;

/// One stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) id: u32,
    pub(super) headers: Headers,
    pub(super) incoming: mpsc::Receiver<Bytes>,
    pub(super) rest: Bytes,
    pub(super) consumed: u32,
    pub(super) outgoing: PollSender<Outgoing>,
    pub(super) window: Arc<Window>,
    pub(super) closed: bool,
}

impl Stream {
    /// The stream's number; a client's are odd.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The headers it was opened with.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The value of one of [`Self::headers`].
    pub fn header(&self, name: &str) -> Option<&str> {
        super::headers::value(&self.headers, name)
    }

    fn acknowledge(&mut self) {
        if self.consumed < ACKNOWLEDGE {
            return;
        }
        let Some(sender) = self.outgoing.get_ref() else { return };
        // When the queue is full the next read tries again.
        if sender.try_send(Outgoing::WindowUpdate { id: self.id, delta: self.consumed }).is_ok() {
            self.consumed = 0;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(this.incoming.poll_recv(cx)) {
                Some(bytes) => this.rest = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        this.consumed = this.consumed.saturating_add(count as u32);
        this.acknowledge();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.closed || this.window.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.outgoing.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let count = ready!(this.window.poll_take(cx, buf.len().min(CHUNK)))?;
        let bytes = Bytes::copy_from_slice(&buf[..count]);
        this.outgoing
            .send_item(Outgoing::Data { id: this.id, fin: false, bytes })
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closed || this.window.is_reset() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.outgoing.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        this.outgoing
            .send_item(Outgoing::Data { id: this.id, fin: true, bytes: Bytes::new() })
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        this.closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.closed || self.window.is_reset() {
            return;
        }
        let Some(sender) = self.outgoing.get_ref().cloned() else { return };
        let reset = Outgoing::Reset { id: self.id, status: CANCEL };
        if let Err(mpsc::error::TrySendError::Full(reset)) = sender.try_send(reset)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { sender.send(reset).await });
        }
    }
}

//! A connection that ends when nothing has moved on it for too long: an abandoned `kubectl exec` must not hold
//! a process's streams for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// `inner`, whose reads fail with `TimedOut` after `timeout` without a byte in either direction.
#[derive(Debug)]
pub(super) struct Idle<I> {
    inner: I,
    timeout: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<I> Idle<I> {
    pub(super) fn new(inner: I, timeout: Duration) -> Self {
        let last = Instant::now();
        Self { inner, timeout, last, timer: Box::pin(tokio::time::sleep_until(last + timeout)) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Idle<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.last = Instant::now();
            return Poll::Ready(result);
        }
        while this.timer.as_mut().poll(cx).is_ready() {
            let deadline = this.last + this.timeout;
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Idle<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        if result.is_ready() {
            self.last = Instant::now();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn traffic_keeps_it_open_and_silence_ends_it() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Idle::new(near, Duration::from_secs(10));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            far.write_all(b"x").await.expect("open");
            assert_eq!(near.read_u8().await.expect("open"), b'x');
        }
        let began = Instant::now();
        assert_eq!(near.read_u8().await.expect_err("silent").kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}

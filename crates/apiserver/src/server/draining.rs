//! A response body that ends when the server stops: otherwise a watch would keep its connection open for ever.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::respond::Body;

pub(super) struct EndsWith {
    body: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EndsWith {
    pub(super) fn new(body: Body, stop: CancellationToken) -> Self {
        Self { body, stop: Box::pin(stop.cancelled_owned()) }
    }
}

impl http_body::Body for EndsWith {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // What is there is sent first: only waiting ends.
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => match self.stop.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A blob as a stream that survives cut connections.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;

use super::Session;
use super::error::{Operation, RegistryError};
use super::hosts::Capability;
use super::request::cause;
use crate::manifest::Descriptor;

/// The bytes of a blob from some offset to its promised end.
#[derive(Debug)]
pub struct BlobStream {
    session: Session,
    descriptor: Descriptor,
    response: Option<Response>,
    /// The next byte that the caller gets.
    position: u64,
    /// Bytes to throw away because the server ignored the range.
    skip: u64,
    /// Cuts without a byte in between.
    failures: u32,
}

impl BlobStream {
    pub(super) async fn open(
        session: Session,
        descriptor: Descriptor,
        offset: u64,
    ) -> Result<Self, RegistryError> {
        let mut stream = Self { session, descriptor, response: None, position: offset, skip: 0, failures: 0 };
        if stream.position < stream.descriptor.size {
            stream.connect().await?;
        }
        Ok(stream)
    }

    /// The next bytes; `None` after the promised size. Cancel-safe only between calls.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let left = self.descriptor.size.saturating_sub(self.position);
            if left == 0 {
                // Whether more would come is not asked: the digest decides about what was promised.
                self.response = None;
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            let failure = match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
                    if chunk.is_empty() {
                        continue;
                    }
                    chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
                    self.position += chunk.len() as u64;
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                Ok(None) => "the connection ended before the promised size".into(),
                Err(error) => cause(error, "read"),
            };
            self.response = None;
            self.pause(failure).await?;
        }
    }

    /// Counts a cut, and waits before the next try.
    async fn pause(&mut self, failure: super::error::Cause) -> Result<(), RegistryError> {
        let config = &self.session.client.inner.config;
        self.failures += 1;
        if self.failures >= config.attempts {
            return Err(RegistryError::Broken {
                at: self.session.at(&self.operation()),
                received: self.position,
                source: failure,
            });
        }
        let wait: Duration = config.retry_pause * (1 << (self.failures - 1).min(5));
        tracing::debug!(blob = %self.descriptor.digest, position = self.position, %failure, "blob is resumed");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), RegistryError> {
        let mut headers = HeaderMap::new();
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            headers.insert(RANGE, range.expect("digits are a header value"));
        }
        let path = format!("blobs/{}", self.descriptor.digest);
        let call = self.session.call(self.operation(), Method::GET, path, headers);
        let response = self.session.send(call, Capability::Pull).await?;
        self.skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
                let start = range
                    .and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
                match start {
                    Some(start) if start <= self.position => self.position - start,
                    _ => return Err(self.protocol("the answer has another range than was asked for")),
                }
            }
            _ => {
                if let Some(length) = response.content_length()
                    && length != self.descriptor.size
                {
                    let promised = self.descriptor.size;
                    return Err(
                        self.protocol(&format!("has {length} bytes, the manifest promises {promised}"))
                    );
                }
                self.position
            }
        };
        self.response = Some(response);
        Ok(())
    }

    fn operation(&self) -> Operation {
        Operation::Blob(self.descriptor.digest.clone())
    }

    fn protocol(&self, what: &str) -> RegistryError {
        RegistryError::Protocol { at: self.session.at(&self.operation()), what: what.to_owned() }
    }
}

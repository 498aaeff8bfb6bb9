//! A blob as a stream that survives cut connections.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::Session;
use super::error::{Cause, Operation, RegistryError};
use super::hosts::Capability;
use super::reply::{Reply, cause};
use super::request::{Call, jittered};
use crate::manifest::Descriptor;

/// The most addresses of a foreign layer that are tried.
const MAX_FOREIGN: usize = 4;
/// A connection that brought this much was no failure.
const PROGRESS: u64 = 16 << 10;

/// The bytes of a blob from some offset to its promised end.
#[derive(Debug)]
pub struct BlobStream {
    session: Session,
    descriptor: Descriptor,
    /// Whether it waits its turn among the long answers.
    bulk: bool,
    reply: Option<Reply>,
    /// Who sends it.
    origin: String,
    /// The next byte that the caller gets.
    position: u64,
    /// Bytes to throw away because the server ignored the range.
    skip: u64,
    /// The server cannot give a part: all of it is asked for, and what is known thrown away.
    no_range: bool,
    /// Cuts without progress in between.
    failures: u32,
    /// Bytes that this connection gave the caller.
    brought: u64,
    /// Bytes of the present window of [`slowest`](super::ClientConfig::slowest), and time spent waiting for them.
    window: (u64, Duration),
}

impl BlobStream {
    pub(super) async fn open(
        session: Session,
        descriptor: Descriptor,
        offset: u64,
        bulk: bool,
    ) -> Result<Self, RegistryError> {
        let mut stream = Self {
            session,
            descriptor,
            bulk,
            reply: None,
            origin: String::new(),
            position: offset,
            skip: 0,
            no_range: false,
            failures: 0,
            brought: 0,
            window: Default::default(),
        };
        if stream.position < stream.descriptor.size {
            stream.connect().await?;
        }
        Ok(stream)
    }

    /// The origin that sends it (as [`Session::distrust`] wants it); empty before the first request.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The next bytes; `None` after the promised size. Cancel-safe only between calls.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let left = self.descriptor.size.saturating_sub(self.position);
            if left == 0 {
                // Whether more would come is not asked: the digest decides about what was promised.
                self.reply = None;
                return Ok(None);
            }
            let Some(reply) = &mut self.reply else {
                self.connect().await?;
                continue;
            };
            let asked = Instant::now();
            let failure: Cause = match reply.response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let arrived = chunk.len() as u64;
                    let skipped = self.skip.min(arrived);
                    self.skip -= skipped;
                    let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
                    chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
                    self.position += chunk.len() as u64;
                    // Only what is new: a server that ignores the range and always cuts at one place gets nowhere.
                    self.brought += chunk.len() as u64;
                    if self.brought >= PROGRESS {
                        self.failures = 0;
                    }
                    if self.is_dripping(arrived, asked.elapsed()) && self.position < self.descriptor.size {
                        self.reply = None;
                        self.pause("the connection is too slow".into()).await?;
                    }
                    if chunk.is_empty() {
                        continue;
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) => "the connection ended before the promised size".into(),
                Err(error) => cause(error, "read"),
            };
            self.reply = None;
            self.pause(failure).await?;
        }
    }

    /// A server that sends a byte now and then never stalls, and never ends. Only time spent waiting for it
    /// counts, not the time in which nobody read.
    fn is_dripping(&mut self, bytes: u64, waited: Duration) -> bool {
        let config = &self.session.client.inner.config;
        self.window.0 += bytes;
        self.window.1 += waited;
        if self.window.1 < config.stall_timeout {
            return false;
        }
        let slow = self.window.0 < config.slowest;
        self.window = Default::default();
        slow
    }

    /// Counts a cut, and waits before the next try.
    async fn pause(&mut self, failure: Cause) -> Result<(), RegistryError> {
        let config = &self.session.client.inner.config;
        self.failures += 1;
        if self.failures >= config.attempts {
            return Err(RegistryError::Broken {
                at: self.session.at(&self.operation()),
                received: self.position,
                source: failure,
            });
        }
        let wait = config.retry_pause * (1 << (self.failures - 1).min(5));
        tracing::debug!(blob = %self.descriptor.digest, position = self.position, %failure, "blob is resumed");
        tokio::time::sleep(jittered(wait, config.jitter)).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), RegistryError> {
        let reply = loop {
            match self.request().await {
                // It would give all of it, but no part.
                Err(error) if !self.no_range && self.position > 0 && is_bad_range(&error) => {
                    self.no_range = true;
                }
                other => break other?,
            }
        };
        self.skip = match reply.response.status() {
            StatusCode::PARTIAL_CONTENT => self.check_range(&reply)?,
            _ => {
                if let Some(length) = reply.response.content_length() {
                    self.check_size(length)?;
                }
                self.position
            }
        };
        self.brought = 0;
        self.window = Default::default();
        self.origin.clone_from(&reply.origin);
        self.reply = Some(reply);
        Ok(())
    }

    async fn request(&self) -> Result<Reply, RegistryError> {
        let mut headers = HeaderMap::new();
        if self.position > 0 && !self.no_range {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            headers.insert(RANGE, range.expect("digits are a header value"));
        }
        let path = format!("blobs/{}", self.descriptor.digest);
        let call =
            Call { bulk: self.bulk, ..self.session.call(self.operation(), Method::GET, path, headers) };
        let found = self
            .session
            .first(&self.operation(), Capability::Pull, |session, endpoint, last| {
                let call = call.clone();
                Box::pin(async move { session.send_to(&endpoint, &call, last).await })
            })
            .await;
        match found {
            Err(error) if error.is_not_found() && !self.descriptor.urls.is_empty() => {
                self.foreign(&call, error).await
            }
            other => other,
        }
    }

    /// The registry has not got it: the manifest says who has.
    async fn foreign(&self, call: &Call, missing: RegistryError) -> Result<Reply, RegistryError> {
        let mut tried = vec![(self.session.host.clone(), missing)];
        for url in self.descriptor.urls.iter().take(MAX_FOREIGN) {
            match self.session.foreign(url, call).await {
                Ok(reply) => return Ok(reply),
                Err(error) => tried.push((super::error::clip(url), error)),
            }
        }
        Err(RegistryError::Tried { at: self.session.at(&self.operation()), tried })
    }

    /// Bytes of a partial answer that are known already.
    fn check_range(&self, reply: &Reply) -> Result<u64, RegistryError> {
        let range = reply.response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let parts = range.and_then(|r| r.trim().strip_prefix("bytes ")?.split_once('/'));
        if let Some((_, total)) = parts
            && let Ok(total) = total.trim().parse()
        {
            self.check_size(total)?;
        }
        let start = parts.and_then(|(span, _)| span.split('-').next()?.trim().parse::<u64>().ok());
        match start {
            Some(start) if start <= self.position => Ok(self.position - start),
            _ => Err(self.protocol("the answer has another range than was asked for")),
        }
    }

    fn check_size(&self, length: u64) -> Result<(), RegistryError> {
        let promised = self.descriptor.size;
        if length == promised {
            return Ok(());
        }
        Err(self.protocol(&format!("has {length} bytes, the manifest promises {promised}")))
    }

    fn operation(&self) -> Operation {
        Operation::Blob(self.descriptor.digest.clone())
    }

    fn protocol(&self, what: &str) -> RegistryError {
        RegistryError::Protocol { at: self.session.at(&self.operation()), what: what.to_owned() }
    }
}

fn is_bad_range(error: &RegistryError) -> bool {
    matches!(error.decisive(), RegistryError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. })
}

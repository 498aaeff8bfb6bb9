//! SPDY/3.1, as far as Kubernetes uses it: streams of bytes with headers over one connection, opened by the
//! client. Both roles are here: the server for `kubectl` and `crictl`, the client for tests and for talking to
//! other runtimes' streaming servers.
//!
//! Flow control follows the other side. client-go's library (spdystream) neither sends nor heeds
//! WINDOW_UPDATE, so a sender that waited for it would hang: windows bound what we send only once the peer has
//! shown that it uses them. What we receive is bounded by short queues; a reader that does not read stops the
//! connection, as it does upstream.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::PollSender;

mod frame;
mod headers;
mod stream;
#[cfg(test)]
mod tests;

use frame::{Incoming, Outgoing};
pub use headers::{Headers, value};
pub use stream::Stream;

/// Frames waiting to be written.
const SEND_QUEUE: usize = 16;
/// Pieces (of at most 32 KiB) waiting to be read, per stream.
const RECEIVE_QUEUE: usize = 8;
/// Open streams of one connection: a port-forward has two per TCP connection.
const MAX_STREAMS: usize = 1000;
/// The draft's initial window.
const INITIAL_WINDOW: i64 = 64 * 1024;
/// How long a closed connection waits for the peer to close its side, so that nothing in flight is lost.
const LINGER: Duration = Duration::from_secs(5);

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens streams with odd numbers.
    Client,
    /// Accepts them.
    Server,
}

/// A connection. Dropping every handle and stream lets it end when the peer closes.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    accepted: mpsc::Receiver<Stream>,
    next: u32,
    ended: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Shared {
    outgoing: mpsc::Sender<Outgoing>,
    streams: Mutex<HashMap<u32, Entry>>,
    /// The peer uses flow control.
    windowed: Arc<AtomicBool>,
    initial: Mutex<i64>,
    last_accepted: AtomicU32,
}

#[derive(Debug)]
struct Entry {
    incoming: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
}

/// What may still be sent on a stream.
#[derive(Debug)]
struct Window {
    windowed: Arc<AtomicBool>,
    reset: AtomicBool,
    credit: Mutex<(i64, Option<Waker>)>,
}

impl Window {
    fn poll_take(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut credit = self.credit.lock().expect("no panic under this lock");
        if self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.windowed.load(Ordering::Relaxed) {
            credit.0 -= wanted as i64;
            return Poll::Ready(Ok(wanted));
        }
        if credit.0 <= 0 {
            credit.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = wanted.min(usize::try_from(credit.0).unwrap_or(usize::MAX));
        credit.0 -= count as i64;
        Poll::Ready(Ok(count))
    }

    fn add(&self, delta: i64) {
        let mut credit = self.credit.lock().expect("no panic under this lock");
        credit.0 = credit.0.saturating_add(delta);
        if let Some(waker) = credit.1.take() {
            waker.wake();
        }
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
        self.add(0);
    }
}

impl Session {
    /// Speaks SPDY on a connection that has been upgraded already.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn start<I>(io: I, role: Role) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outgoing, to_write) = mpsc::channel(SEND_QUEUE);
        let (accept, accepted) = mpsc::channel(SEND_QUEUE);
        let (end, ended) = watch::channel(false);
        let shared = Arc::new(Shared {
            outgoing,
            streams: Mutex::default(),
            windowed: Arc::default(),
            initial: Mutex::new(INITIAL_WINDOW),
            last_accepted: AtomicU32::new(0),
        });
        let compressor = headers::Compressor::new()?;
        let weak = Arc::downgrade(&shared);
        let writer = tokio::spawn(write_frames(write, to_write, compressor));
        let reader = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = reader.read_frames(read, role, accept).await {
                tracing::debug!(%error, "SPDY connection ended");
            }
            drop(reader);
            if let Some(shared) = weak.upgrade() {
                shared.close_streams();
            }
            end.send_replace(true);
            writer.abort();
        });
        let next = if role == Role::Client { 1 } else { 2 };
        Ok(Self { shared, accepted, next, ended })
    }

    /// The next stream that the peer opens; `None` once the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open(&mut self, headers: Headers) -> io::Result<Stream> {
        let id = self.next;
        self.next += 2;
        let stream = self.shared.register(id, headers.clone(), false);
        self.shared
            .outgoing
            .send(Outgoing::SynStream { id, headers })
            .await
            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
        Ok(stream)
    }

    /// Sends a ping with this number (a client's are odd); the answer is not awaited.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&self, id: u32) -> io::Result<()> {
        self.shared
            .outgoing
            .send(Outgoing::Ping { id })
            .await
            .map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Says GOAWAY and waits, at most five seconds, for the peer to close.
    pub async fn close(mut self) {
        let last = self.shared.last_accepted.load(Ordering::Relaxed);
        self.accepted.close();
        let _ = self.shared.outgoing.send(Outgoing::GoAway { last }).await;
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout(LINGER, ended.wait_for(|ended| *ended)).await;
    }
}

impl Shared {
    fn register(&self, id: u32, headers: Headers, finished: bool) -> Stream {
        let (sender, incoming) = mpsc::channel(RECEIVE_QUEUE);
        let credit = *self.initial.lock().expect("no panic under this lock");
        let window = Arc::new(Window {
            windowed: Arc::clone(&self.windowed),
            reset: AtomicBool::new(false),
            credit: Mutex::new((credit, None)),
        });
        let entry = Entry { incoming: (!finished).then_some(sender), window: Arc::clone(&window) };
        self.streams.lock().expect("no panic under this lock").insert(id, entry);
        let outgoing = PollSender::new(self.outgoing.clone());
        Stream { id, headers, incoming, rest: Bytes::new(), consumed: 0, outgoing, window, closed: false }
    }

    async fn read_frames<R: AsyncRead + Unpin>(
        &self,
        io: R,
        role: Role,
        accept: mpsc::Sender<Stream>,
    ) -> io::Result<()> {
        let mut io = tokio::io::BufReader::with_capacity(frame::CHUNK, io);
        let mut decompressor = headers::Decompressor::new();
        let mut going_away = false;
        while let Some(incoming) = frame::read(&mut io).await? {
            match incoming {
                Incoming::SynStream { id, fin, block } => {
                    // Every block feeds the shared dictionary, also that of a refused stream.
                    let headers = decompressor.decode(&block)?;
                    if role == Role::Client || id % 2 == 0 || id <= self.last_accepted.load(Ordering::Relaxed)
                    {
                        self.send(Outgoing::Reset { id, status: frame::PROTOCOL_ERROR }).await?;
                        continue;
                    }
                    self.last_accepted.store(id, Ordering::Relaxed);
                    if going_away || accept.is_closed() || self.open_streams() >= MAX_STREAMS {
                        self.send(Outgoing::Reset { id, status: frame::REFUSED_STREAM }).await?;
                        continue;
                    }
                    let stream = self.register(id, headers, fin);
                    self.send(Outgoing::SynReply { id }).await?;
                    let _ = accept.send(stream).await;
                }
                Incoming::SynReply { id, fin, block } | Incoming::Headers { id, fin, block } => {
                    decompressor.decode(&block)?;
                    if fin {
                        self.finish(id);
                    }
                }
                Incoming::Reset { id } => {
                    if let Some(entry) = self.remove(id) {
                        entry.window.reset();
                    }
                }
                Incoming::InitialWindow { bytes } => self.initial_window(i64::from(bytes)),
                // Ours come back with our parity.
                Incoming::Ping { id } if (id % 2 == 1) == (role == Role::Server) => {
                    self.send(Outgoing::Ping { id }).await?;
                }
                Incoming::Ping { .. } | Incoming::Unknown => {}
                Incoming::GoAway => going_away = true,
                Incoming::WindowUpdate { id, delta } => {
                    self.windowed.store(true, Ordering::Relaxed);
                    if let Some(entry) = self.streams.lock().expect("no panic under this lock").get(&id) {
                        entry.window.add(i64::from(delta));
                    }
                }
                Incoming::Data { id, fin, piece, remaining } => {
                    self.data(&mut io, id, fin, piece, remaining).await?
                }
            }
        }
        Ok(())
    }

    async fn data<R: AsyncRead + Unpin>(
        &self,
        io: &mut R,
        id: u32,
        fin: bool,
        mut piece: Bytes,
        mut remaining: usize,
    ) -> io::Result<()> {
        let sender = self
            .streams
            .lock()
            .expect("no panic under this lock")
            .get(&id)
            .and_then(|entry| entry.incoming.clone());
        loop {
            if let Some(sender) = &sender
                && !piece.is_empty()
            {
                // Nobody reads any more: the bytes are dropped, the connection goes on.
                let _ = sender.send(piece).await;
            }
            if remaining == 0 {
                break;
            }
            let Incoming::Data { piece: next, remaining: left, .. } =
                frame::read_piece(io, id, fin, remaining).await?
            else {
                break;
            };
            (piece, remaining) = (next, left);
        }
        if fin {
            self.finish(id);
        }
        Ok(())
    }

    /// The peer sends nothing more on this stream.
    fn finish(&self, id: u32) {
        if let Some(entry) = self.streams.lock().expect("no panic under this lock").get_mut(&id) {
            entry.incoming = None;
        }
    }

    fn remove(&self, id: u32) -> Option<Entry> {
        self.streams.lock().expect("no panic under this lock").remove(&id)
    }

    /// Streams that someone holds; the others are forgotten on the way.
    fn open_streams(&self) -> usize {
        let mut streams = self.streams.lock().expect("no panic under this lock");
        streams.retain(|_, entry| Arc::strong_count(&entry.window) > 1);
        streams.len()
    }

    fn initial_window(&self, bytes: i64) {
        self.windowed.store(true, Ordering::Relaxed);
        let mut initial = self.initial.lock().expect("no panic under this lock");
        let delta = bytes - *initial;
        *initial = bytes;
        for entry in self.streams.lock().expect("no panic under this lock").values() {
            entry.window.add(delta);
        }
    }

    fn close_streams(&self) {
        let entries: Vec<Entry> =
            self.streams.lock().expect("no panic under this lock").drain().map(|(_, entry)| entry).collect();
        for entry in entries {
            entry.window.reset();
        }
    }

    async fn send(&self, frame: Outgoing) -> io::Result<()> {
        self.outgoing.send(frame).await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }
}

/// Writes frames in batches; after GOAWAY the write side is closed.
async fn write_frames<W: AsyncWrite + Unpin>(
    mut io: W,
    mut frames: mpsc::Receiver<Outgoing>,
    mut compressor: headers::Compressor,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(2 * frame::CHUNK);
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        let mut last = false;
        while let Some(frame) = next {
            last |= matches!(frame, Outgoing::GoAway { .. });
            frame::encode(frame, &mut compressor, &mut buffer)?;
            next = if buffer.len() < frame::CHUNK && !last { frames.try_recv().ok() } else { None };
        }
        io.write_all(&buffer).await?;
        io.flush().await?;
        buffer.clear();
        if last {
            io.shutdown().await?;
            return Ok(());
        }
    }
    io.shutdown().await
}

//! A layer's way from the network to its directory: verified, kept, decompressed and unpacked while it
//! arrives.
//!
//! Two blocking threads per layer with small, bounded queues between them:
//!
//! ```text
//! network -> [hash blob, write it, decompress, hash tar] -> [untar]
//! ```
//!
//! so a layer never stands in memory as a whole, and the two heaviest parts (decompressing, writing files)
//! run on two cores even when a single layer is all that is left.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sampan_oci::codec::Decoder;
use sampan_oci::digest::{Hasher, Verifier, VerifyError};
use sampan_oci::{Algorithm, Descriptor, Digest};
use tokio::sync::mpsc;

use crate::content::Ingest;
use crate::room::Room;
use crate::unpack::{UnpackError, UnpackLimits, Unpacked, unpack};

/// Network chunks that may wait (each up to some 64 KiB).
pub(super) const QUEUE: usize = 16;
/// Uncompressed pieces that may wait.
const PIECES: usize = 8;
const PIECE: usize = 256 << 10;

/// A part of the blob, or its end; a channel that closes without the end was broken off.
#[derive(Debug)]
pub(super) enum Part {
    Data(Bytes),
    End,
}

/// Where the compressed bytes come from.
pub(super) enum Input {
    /// A blob that is stored already.
    Stored(File),
    /// A blob that arrives, behind what an earlier download left in the ingest file.
    Arriving { ingest: Ingest, parts: mpsc::Receiver<Part> },
}

/// Counters that others may read while the threads work.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) arrived: AtomicU64,
    pub(super) unpacked: AtomicU64,
}

/// Why a layer did not come through.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The network side went away; it knows why.
    BrokenOff,
    /// The blob is not what was promised.
    Verify(VerifyError),
    /// Decompressing failed.
    Decode(io::Error),
    /// The blob could not be written or read.
    Blob(io::Error),
    /// Unpacking failed.
    Unpack(UnpackError),
    /// A thread panicked.
    Panicked,
}

/// What came through.
pub(super) struct Streamed {
    pub(super) unpacked: Unpacked,
    pub(super) diff_id: Digest,
    /// The complete, verified ingest file.
    pub(super) ingest: Option<Ingest>,
}

/// What is to come through, and within which bounds.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The compressed blob.
    pub(super) blob: &'a Descriptor,
    /// What the digest of the uncompressed tar is made with.
    pub(super) diff_algorithm: Algorithm,
    pub(super) limits: &'a UnpackLimits,
}

/// Runs a layer through into `dir`, blocking.
pub(super) fn run(
    input: Input,
    expected: Expected<'_>,
    dir: &Path,
    counters: &Arc<Counters>,
) -> Result<Streamed, StreamError> {
    let (pieces, received) = sync_channel::<Piece>(PIECES);
    let (empty, recycled) = sync_channel::<Vec<u8>>(PIECES + 2);
    std::thread::scope(|scope| {
        let counters_of_unpacker = counters.clone();
        let unpacker = std::thread::Builder::new()
            .name("unpack".to_owned())
            .spawn_scoped(scope, move || {
                let mut reader = PieceReader::new(received, empty, counters_of_unpacker);
                let unpacked = unpack(&mut reader, dir, expected.limits);
                // Padding behind the end of the tar belongs to its digest.
                if unpacked.is_ok() {
                    reader.drain()?;
                }
                unpacked
            })
            .map_err(StreamError::Blob)?;
        let decoded = decode(input, expected, counters, pieces, recycled);
        let unpacked = unpacker.join().map_err(|_| StreamError::Panicked)?;
        match (decoded, unpacked) {
            (Ok((diff_id, ingest)), Ok(unpacked)) => Ok(Streamed { unpacked, diff_id, ingest }),
            // The decoder only noticed that the unpacker had gone.
            (Err(Decoded::UnpackerGone), Err(error)) | (Ok(_), Err(error)) => Err(StreamError::Unpack(error)),
            (Err(Decoded::Error(error)), _) => Err(error),
            (Err(Decoded::UnpackerGone), Ok(_)) => Err(StreamError::Panicked),
        }
    })
}

enum Decoded {
    UnpackerGone,
    Error(StreamError),
}

fn decode(
    input: Input,
    expected: Expected<'_>,
    counters: &Arc<Counters>,
    pieces: SyncSender<Piece>,
    recycled: Receiver<Vec<u8>>,
) -> Result<(Digest, Option<Ingest>), Decoded> {
    let incoming = Incoming::new(input, expected.blob, counters.clone())
        .map_err(|e| Decoded::Error(StreamError::Blob(e)))?;
    let state = incoming.state.clone();
    // An error inside the reader is remembered there, because decoders rephrase what they get.
    let blame = |error: io::Error| state.take().unwrap_or(StreamError::Decode(error));
    let mut decoder = Decoder::new(incoming).map_err(|e| Decoded::Error(blame(e)))?;
    let mut hasher = Hasher::new(expected.diff_algorithm);
    let mut total = 0u64;
    loop {
        let mut piece = recycled.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match decoder.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Decoded::Error(diagnose(decoder, blame(e)))),
            }
        }
        if filled == 0 {
            break;
        }
        piece.truncate(filled);
        hasher.update(&piece);
        total += filled as u64;
        check_growth(total, counters.arrived.load(Ordering::Relaxed), expected.limits)
            .map_err(|e| Decoded::Error(StreamError::Unpack(e)))?;
        pieces.send(Piece::Data(piece)).map_err(|_| Decoded::UnpackerGone)?;
    }
    // What stands behind the compressed stream still belongs to the blob's digest.
    let mut rest = decoder.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|e| Decoded::Error(blame(e)))?;
    let ingest = rest.into_inner().into_inner().finish().map_err(Decoded::Error)?;
    pieces.send(Piece::End).map_err(|_| Decoded::UnpackerGone)?;
    Ok((hasher.finish(), ingest))
}

/// A stream that does not decompress is most likely not what its digest promises: the rest is read to know.
fn diagnose(decoder: Decoder<Incoming>, error: StreamError) -> StreamError {
    if !matches!(error, StreamError::Decode(_)) {
        return error;
    }
    let mut rest = decoder.into_inner();
    let state = rest.get_ref().get_ref().state.clone();
    if io::copy(&mut rest, &mut io::sink()).is_err() {
        return state.take().unwrap_or(error);
    }
    rest.into_inner().into_inner().finish().err().unwrap_or(error)
}

fn check_growth(total: u64, compressed: u64, limits: &UnpackLimits) -> Result<(), UnpackError> {
    if total > limits.max_bytes {
        return Err(UnpackError::TooLarge { limit: limits.max_bytes });
    }
    if total > limits.ratio_from && total / compressed.max(1) > limits.max_ratio {
        return Err(UnpackError::Ratio { ratio: limits.max_ratio });
    }
    Ok(())
}

/// An error of the incoming side, kept where the decoder cannot rephrase it.
#[derive(Clone, Default)]
struct Blame(Arc<std::sync::Mutex<Option<StreamError>>>);

impl Blame {
    fn put(&self, error: StreamError) -> io::Error {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
        io::Error::other("the incoming side failed")
    }

    fn take(&self) -> Option<StreamError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// Reads the compressed blob, and on the way hashes it and writes what is new to the ingest file.
struct Incoming {
    stored: Option<File>,
    /// Bytes of `stored` that are still to be read.
    stored_left: u64,
    arriving: Option<(Ingest, mpsc::Receiver<Part>)>,
    current: Bytes,
    ended: bool,
    verifier: Verifier,
    counters: Arc<Counters>,
    room: Room,
    state: Blame,
}

impl Incoming {
    fn new(input: Input, blob: &Descriptor, counters: Arc<Counters>) -> io::Result<Self> {
        let verifier = Verifier::new(blob.digest.clone(), Some(blob.size));
        let (stored, stored_left, arriving) = match input {
            Input::Stored(file) => (Some(file), u64::MAX, None),
            Input::Arriving { mut ingest, parts } => {
                let offset = ingest.offset;
                let mut before = File::open(&ingest.path)?;
                before.seek(SeekFrom::Start(0))?;
                ingest.file.seek(SeekFrom::Start(offset))?;
                (Some(before), offset, Some((ingest, parts)))
            }
        };
        Ok(Self {
            stored,
            stored_left,
            arriving,
            current: Bytes::new(),
            ended: false,
            verifier,
            counters,
            room: Room::default(),
            state: Blame::default(),
        })
    }

    /// The verdict, once everything was read.
    fn finish(self) -> Result<Option<Ingest>, StreamError> {
        match self.verifier.finish() {
            Ok(_) => Ok(self.arriving.map(|(ingest, _)| ingest)),
            Err(error) => {
                if let Some((ingest, _)) = self.arriving {
                    // Not worth continuing.
                    let _ = std::fs::remove_file(&ingest.path);
                }
                Err(StreamError::Verify(error))
            }
        }
    }

    fn count(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.verifier.update(bytes)?;
        self.counters.arrived.store(self.verifier.seen(), Ordering::Relaxed);
        Ok(())
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stored_left > 0
            && let Some(stored) = &mut self.stored
        {
            let want = usize::try_from(self.stored_left).unwrap_or(usize::MAX).min(buf.len());
            let n = stored.read(&mut buf[..want]).map_err(|e| self.state.put(StreamError::Blob(e)))?;
            if n > 0 {
                self.stored_left -= n as u64;
                self.count(&buf[..n]).map_err(|e| self.state.put(StreamError::Verify(e)))?;
                return Ok(n);
            }
            self.stored = None;
            self.stored_left = 0;
        }
        while self.current.is_empty() {
            let Some((ingest, parts)) = &mut self.arriving else { return Ok(0) };
            if self.ended {
                return Ok(0);
            }
            match parts.blocking_recv() {
                Some(Part::Data(data)) => {
                    let room = self.room.take(&ingest.file, data.len() as u64).map_err(io::Error::from);
                    let written = room.and_then(|()| ingest.file.write_all(&data));
                    written.map_err(|e| self.state.put(StreamError::Blob(e)))?;
                    self.current = data.clone();
                    self.count(&data).map_err(|e| self.state.put(StreamError::Verify(e)))?;
                }
                Some(Part::End) => self.ended = true,
                None => return Err(self.state.put(StreamError::BrokenOff)),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

enum Piece {
    Data(Vec<u8>),
    End,
}

/// The unpacker's side of the queue.
struct PieceReader {
    pieces: Receiver<Piece>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
    counters: Arc<Counters>,
}

impl PieceReader {
    fn new(pieces: Receiver<Piece>, empty: SyncSender<Vec<u8>>, counters: Arc<Counters>) -> Self {
        Self { pieces, empty, current: Vec::new(), at: 0, ended: false, counters }
    }

    fn next(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.current);
        if used.capacity() > 0 {
            // When the queue of empty ones is full, this one is dropped.
            let _ = self.empty.try_send(used);
        }
        self.at = 0;
        match self.pieces.recv() {
            Ok(Piece::Data(data)) => {
                self.counters.unpacked.fetch_add(data.len() as u64, Ordering::Relaxed);
                self.current = data;
            }
            Ok(Piece::End) => self.ended = true,
            Err(_) => return Err(io::Error::other("the layer was broken off")),
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), UnpackError> {
        while !self.ended {
            self.next().map_err(UnpackError::Read)?;
        }
        Ok(())
    }
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(buf.len());
        buf[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() && !self.ended {
            self.next()?;
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

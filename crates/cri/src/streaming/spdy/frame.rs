//! Frames on the wire (SPDY/3.1 draft, section 2.2): eight bytes of head, then a body whose length the head
//! gives. Data frames are read in pieces, so their length needs no bound; control frames have one.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The last frame of its direction of a stream.
pub(super) const FLAG_FIN: u8 = 0x01;
/// A control frame's body: header blocks are far smaller.
const MAX_CONTROL: usize = 64 * 1024;
const VERSION: u16 = 3;
/// Data is handed on in pieces of at most this many bytes.
pub(super) const CHUNK: usize = 32 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why a stream is reset: the draft's codes.
pub(super) const PROTOCOL_ERROR: u32 = 1;
/// See [`PROTOCOL_ERROR`].
pub(super) const REFUSED_STREAM: u32 = 3;
/// See [`PROTOCOL_ERROR`].
pub(super) const CANCEL: u32 = 5;

/// What arrives; header blocks are still compressed.
#[derive(Debug)]
pub(super) enum Incoming {
    SynStream {
        id: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        id: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        id: u32,
    },
    /// The peer set the initial window, so it does flow control.
    InitialWindow {
        bytes: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        id: u32,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    /// `remaining` bytes of this frame follow in further pieces.
    Data {
        id: u32,
        fin: bool,
        piece: Bytes,
        remaining: usize,
    },
    /// A control frame of an unknown type, which the draft says to ignore.
    Unknown,
}

/// Reads one frame, or the first piece of a data frame; `None` at a clean end.
pub(super) async fn read<R: AsyncRead + Unpin>(io: &mut R) -> io::Result<Option<Incoming>> {
    let mut head = [0u8; 8];
    if io.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    io.read_exact(&mut head[1..]).await?;
    let mut head = &head[..];
    let first = head.get_u32();
    let second = head.get_u32();
    let flags = (second >> 24) as u8;
    let length = (second & 0x00ff_ffff) as usize;
    let fin = flags & FLAG_FIN != 0;
    if first & 0x8000_0000 == 0 {
        return read_piece(io, first, fin, length).await.map(Some);
    }
    if length > MAX_CONTROL {
        return Err(invalid("control frame too large"));
    }
    if (first >> 16) as u16 & 0x7fff != VERSION {
        return Err(invalid("not SPDY version 3"));
    }
    let mut body = vec![0u8; length];
    io.read_exact(&mut body).await?;
    control((first & 0xffff) as u16, fin, body.into()).map(Some)
}

/// Reads the next piece of a data frame of which `length` bytes are still to come.
pub(super) async fn read_piece<R: AsyncRead + Unpin>(
    io: &mut R,
    id: u32,
    fin: bool,
    length: usize,
) -> io::Result<Incoming> {
    let mut piece = vec![0u8; length.min(CHUNK)];
    io.read_exact(&mut piece).await?;
    let remaining = length - piece.len();
    Ok(Incoming::Data { id, fin, piece: piece.into(), remaining })
}

fn control(kind: u16, fin: bool, mut body: Bytes) -> io::Result<Incoming> {
    let word = |body: &mut Bytes| -> io::Result<u32> {
        if body.len() < 4 {
            return Err(invalid("control frame is cut off"));
        }
        Ok(body.get_u32())
    };
    Ok(match kind {
        SYN_STREAM => {
            let id = word(&mut body)? & 0x7fff_ffff;
            word(&mut body)?;
            if body.len() < 2 {
                return Err(invalid("control frame is cut off"));
            }
            body.advance(2);
            Incoming::SynStream { id, fin, block: body }
        }
        SYN_REPLY => Incoming::SynReply { id: word(&mut body)? & 0x7fff_ffff, fin, block: body },
        RST_STREAM => Incoming::Reset { id: word(&mut body)? & 0x7fff_ffff },
        PING => Incoming::Ping { id: word(&mut body)? },
        GOAWAY => Incoming::GoAway,
        HEADERS => Incoming::Headers { id: word(&mut body)? & 0x7fff_ffff, fin, block: body },
        WINDOW_UPDATE => Incoming::WindowUpdate {
            id: word(&mut body)? & 0x7fff_ffff,
            delta: word(&mut body)? & 0x7fff_ffff,
        },
        SETTINGS => {
            let count = word(&mut body)?;
            let mut window = None;
            for _ in 0..count {
                let id = word(&mut body)? & 0x00ff_ffff;
                let value = word(&mut body)?;
                if id == INITIAL_WINDOW_SIZE {
                    window = Some(value);
                }
            }
            window.map_or(Incoming::Unknown, |bytes| Incoming::InitialWindow { bytes })
        }
        _ => Incoming::Unknown,
    })
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Outgoing {
    SynStream { id: u32, headers: super::Headers },
    SynReply { id: u32 },
    Reset { id: u32, status: u32 },
    Ping { id: u32 },
    GoAway { last: u32 },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, fin: bool, bytes: Bytes },
}

/// Appends a frame to `out`.
pub(super) fn encode(
    frame: Outgoing,
    compressor: &mut super::headers::Compressor,
    out: &mut BytesMut,
) -> io::Result<()> {
    match frame {
        Outgoing::SynStream { id, headers } => {
            let block = compressor.encode(&headers)?;
            head(out, SYN_STREAM, 10 + block.len());
            out.put_u32(id);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(&block);
        }
        Outgoing::SynReply { id } => {
            let block = compressor.encode(&super::Headers::new())?;
            head(out, SYN_REPLY, 4 + block.len());
            out.put_u32(id);
            out.put_slice(&block);
        }
        Outgoing::Reset { id, status } => {
            head(out, RST_STREAM, 8);
            out.put_u32(id);
            out.put_u32(status);
        }
        Outgoing::Ping { id } => {
            head(out, PING, 4);
            out.put_u32(id);
        }
        Outgoing::GoAway { last } => {
            head(out, GOAWAY, 8);
            out.put_u32(last);
            out.put_u32(0);
        }
        Outgoing::WindowUpdate { id, delta } => {
            head(out, WINDOW_UPDATE, 8);
            out.put_u32(id);
            out.put_u32(delta);
        }
        Outgoing::Data { id, fin, bytes } => {
            out.put_u32(id & 0x7fff_ffff);
            out.put_u32(
                (u32::from(if fin { FLAG_FIN } else { 0 }) << 24) | (bytes.len() as u32 & 0x00ff_ffff),
            );
            out.put_slice(&bytes);
        }
    }
    Ok(())
}

fn head(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(length as u32 & 0x00ff_ffff);
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

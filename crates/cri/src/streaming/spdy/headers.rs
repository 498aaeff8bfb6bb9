//! Header blocks: name/value pairs, compressed with one zlib stream per direction and connection that starts
//! from the dictionary of the SPDY/3 draft (section 2.6.10.1; `dictionary.bin` is that table, 1423 bytes with
//! Adler-32 e3c6a7c2).

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// A block's size after decompression; ours and client-go's are below 200 bytes.
const MAX_BLOCK: usize = 64 * 1024;
/// Pairs of one block.
const MAX_PAIRS: usize = 100;

/// Header names are lower case on the wire.
pub type Headers = Vec<(String, String)>;

/// The value of the first header with this name, without regard to case.
pub fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The sending direction of a connection.
pub(super) struct Compressor(Compress);

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
        Ok(Self(compress))
    }

    pub(super) fn encode(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut plain = BytesMut::new();
        plain.put_u32(length(headers.len())?);
        for (name, value) in headers {
            plain.put_u32(length(name.len())?);
            plain.put_slice(name.to_ascii_lowercase().as_bytes());
            plain.put_u32(length(value.len())?);
            plain.put_slice(value.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut input = &plain[..];
        loop {
            if out.capacity() - out.len() < 64 {
                out.reserve(256);
            }
            let before = self.0.total_in();
            let room_before = out.capacity() - out.len();
            let length_before = out.len();
            self.0.compress_vec(input, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
            let consumed = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            input = &input[consumed.min(input.len())..];
            // Room left over means that the flush is complete.
            if input.is_empty() && out.len() - length_before < room_before {
                return Ok(out);
            }
        }
    }
}

/// The receiving direction of a connection.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn decode(&mut self, block: &[u8]) -> io::Result<Headers> {
        let plain = self.inflate(block)?;
        parse(plain.into())
    }

    fn inflate(&mut self, mut input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out: Vec<u8> = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_BLOCK {
                    return Err(invalid("header block too large"));
                }
                out.reserve(out.len().max(256));
            }
            let before = self.0.total_in();
            let length_before = out.len();
            let result = self.0.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            input = &input[consumed.min(input.len())..];
            match result {
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(_) => {
                    let progressed = consumed > 0 || out.len() > length_before;
                    if input.is_empty() && out.len() < out.capacity() {
                        return Ok(out);
                    }
                    if !progressed && out.len() < out.capacity() {
                        return Err(invalid("header block cannot be decompressed"));
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
                }
                Err(_) => return Err(invalid("header block cannot be decompressed")),
            }
        }
    }
}

fn parse(mut block: Bytes) -> io::Result<Headers> {
    let pairs = take_length(&mut block)?;
    if pairs > MAX_PAIRS {
        return Err(invalid("too many headers"));
    }
    let mut headers = Headers::with_capacity(pairs);
    for _ in 0..pairs {
        let name = take_string(&mut block)?;
        let value = take_string(&mut block)?;
        headers.push((name, value));
    }
    Ok(headers)
}

fn take_length(block: &mut Bytes) -> io::Result<usize> {
    if block.len() < 4 {
        return Err(invalid("header block is cut off"));
    }
    usize::try_from(block.get_u32()).map_err(|_| invalid("header block is cut off"))
}

fn take_string(block: &mut Bytes) -> io::Result<String> {
    let length = take_length(block)?;
    if block.len() < length {
        return Err(invalid("header block is cut off"));
    }
    String::from_utf8(block.split_to(length).to_vec()).map_err(|_| invalid("header is not UTF-8"))
}

fn length(value: usize) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| invalid("header too long"))
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blocks_survive_the_round_trip_and_share_their_history() {
        let (mut send, mut receive) = (Compressor::new().unwrap(), Decompressor::new());
        let long = "x".repeat(5000);
        for headers in [
            pairs(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")]),
            pairs(&[]),
            pairs(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0"), ("long", &long)]),
        ] {
            let block = send.encode(&headers).unwrap();
            assert_eq!(receive.decode(&block).unwrap(), headers);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut send = Compressor::new().unwrap();
        let block = send.encode(&pairs(&[("bomb", &"0".repeat(1 << 20))])).unwrap();
        assert!(block.len() < 8192);
        assert!(Decompressor::new().decode(&block).is_err());
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(Decompressor::new().decode(b"not zlib at all").is_err());
        assert!(parse(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 9, b'x'])).is_err());
        assert!(parse(Bytes::from_static(&[255, 255, 255, 255])).is_err());
    }
}

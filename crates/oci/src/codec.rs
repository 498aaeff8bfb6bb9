//! Layer compressions: gzip, zstd and none, told apart by their first bytes. Others are refused by name.
//!
//! The bytes decide, not the media type: images whose layers are called gzip and are not (and the other
//! way round) are common, and the digests make sure that nothing else is different.

use std::io::{self, BufReader, Read};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The name of a compression that is known and not supported, by its first bytes.
    pub fn unsupported(head: &[u8]) -> Option<&'static str> {
        match head {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
            [b'L', b'Z', b'I', b'P', 1, ..] => Some("lzip"),
            _ => None,
        }
    }

    /// By the first bytes; four are enough.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame in front of a zstd stream.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What a media type promises.
    pub fn of_media_type(media_type: &str) -> Self {
        if media_type.ends_with("gzip") {
            Self::Gzip
        } else if media_type.ends_with("zstd") {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// The largest zstd window that is accepted: 2^27 bytes (128 MiB), the format's own recommendation;
/// anything larger is a way to use up memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const BUFFER: usize = 64 << 10;
/// As many first bytes as are looked at.
const HEAD: usize = 10;

/// A reader whose first bytes were looked at.
#[derive(Debug)]
pub struct Peeked<R> {
    head: [u8; HEAD],
    /// The part of `head` that is still to be given.
    left: std::ops::Range<usize>,
    inner: R,
}

impl<R: Read> Peeked<R> {
    fn new(mut inner: R) -> io::Result<Self> {
        let mut head = [0; HEAD];
        let mut filled = 0;
        while filled < head.len() {
            match inner.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self { head, left: 0..filled, inner })
    }

    /// The reader below.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The reader below.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() {
            return self.inner.read(buf);
        }
        let n = self.left.len().min(buf.len());
        buf[..n].copy_from_slice(&self.head[self.left.start..self.left.start + n]);
        self.left.start += n;
        Ok(n)
    }
}

/// A reader of the uncompressed bytes.
#[expect(clippy::large_enum_variant, reason = "one exists per layer that is being unpacked")]
pub enum Decoder<R: Read> {
    /// Passed through.
    None(BufReader<Peeked<R>>),
    /// gzip; several members in a row are one stream.
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<Peeked<R>>>),
    /// zstd; several frames in a row are one stream.
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Peeked<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `reader` and decodes accordingly.
    pub fn new(reader: R) -> io::Result<Self> {
        let peeked = Peeked::new(reader)?;
        let head = &peeked.head[peeked.left.clone()];
        if let Some(name) = Compression::unsupported(head) {
            let text = format!("compressed with {name}, which is not supported (gzip and zstd are)");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let compression = Compression::detect(head);
        let reader = BufReader::with_capacity(BUFFER, peeked);
        Ok(match compression {
            Compression::None => Self::None(reader),
            Compression::Gzip => Self::Gzip(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(decoder)
            }
        })
    }

    /// What was detected.
    pub fn compression(&self) -> Compression {
        match self {
            Self::None(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// The reader below; bytes may be left in the buffer in between.
    pub fn into_inner(self) -> BufReader<Peeked<R>> {
        match self {
            Self::None(r) => r,
            Self::Gzip(d) => d.into_inner(),
            Self::Zstd(d) => d.finish(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(r) => r.read(buf),
            Self::Gzip(d) => d.read(buf),
            Self::Zstd(d) => d.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    fn decode(data: &[u8]) -> (Compression, io::Result<Vec<u8>>) {
        let mut d = Decoder::new(data).unwrap();
        let mut out = Vec::new();
        let result = d.read_to_end(&mut out).map(|_| out);
        (d.compression(), result)
    }

    #[test]
    fn bytes_decide() {
        let text = b"some layer".repeat(1000);
        assert_eq!(decode(&gzip(&text)).1.unwrap(), text);
        let zst = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(decode(&zst).0, Compression::Zstd);
        assert_eq!(decode(&zst).1.unwrap(), text);
        assert_eq!(decode(&text).1.unwrap(), text);
        assert_eq!(decode(b"").1.unwrap(), b"");
        assert_eq!(decode(b"ab").1.unwrap(), b"ab");
    }

    #[test]
    fn other_compressions_are_refused_by_name() {
        for (head, name) in
            [(&b"\xfd7zXZ\0\0\0\0\0"[..], "xz"), (b"BZh91AY&SY..", "bzip2"), (b"LZIP\x01.....", "lzip")]
        {
            let error = Decoder::new(head).err().unwrap().to_string();
            assert!(error.contains(&format!("compressed with {name}")), "{error}");
        }
        // A tar whose first file has such a name is a tar.
        assert_eq!(decode(b"BZh9-notes.txt").1.unwrap(), b"BZh9-notes.txt");
    }

    #[test]
    fn streams_in_a_row_are_one() {
        let two = [gzip(b"one"), gzip(b"two")].concat();
        assert_eq!(decode(&two).1.unwrap(), b"onetwo");
        let two =
            [zstd::encode_all(&b"one"[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap()].concat();
        assert_eq!(decode(&two).1.unwrap(), b"onetwo");
    }

    #[test]
    fn cut_streams_are_errors() {
        let whole = gzip(&b"some layer".repeat(1000));
        assert!(decode(&whole[..whole.len() - 9]).1.is_err());
        let whole = zstd::encode_all(&b"some layer".repeat(1000)[..], 3).unwrap();
        assert!(decode(&whole[..whole.len() - 3]).1.is_err());
    }
}

//! A streaming tar reader that bounds what it keeps in memory.
//!
//! The `tar` crate decodes header fields; the walk over headers is ours because extension records (long
//! names, PAX) come from strangers and must be bounded, and because sizes in PAX records decide where the next
//! header is.

use std::collections::HashMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::UnpackError;

const BLOCK: usize = 512;
/// Bounds the extension records of one entry together, headers included: long names and PAX pairs (xattrs too).
const MAX_EXTENSION: u64 = 1 << 20;
/// Bounds the pieces of a sparse file.
const MAX_SPARSE: usize = 1 << 16;

/// One entry; its content follows in the reader.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The name, as written.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) kind: EntryType,
    /// Bytes of content in the stream.
    pub(crate) size: u64,
    /// Length of the file; larger than `size` for sparse files.
    pub(crate) length: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// (offset, length) of the pieces of a sparse file.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
    /// How many extension records came before it.
    pub(crate) extensions: u64,
}

/// Reads entries one after the other.
pub(crate) struct TarReader<R> {
    reader: R,
    offset: u64,
    /// Content of the current entry that was not read yet.
    left: u64,
    /// Padding behind it.
    padding: u64,
    done: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, offset: 0, left: 0, padding: 0, done: false }
    }

    /// The next entry, with all extension records applied. `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut long_path = None;
        let mut long_link = None;
        let mut pax: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let (mut extensions, mut extended) = (0, 0u64);
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = blank_or(&header.as_old().size, header.entry_size())
                .map_err(|e| self.damaged(format!("size: {e}")))?;
            if is_extension(header.entry_type()) {
                extensions += 1;
                extended = extended.saturating_add(size).saturating_add(BLOCK as u64);
                if extended > MAX_EXTENSION {
                    return Err(
                        self.damaged(format!("extension records of {extended} bytes before one entry"))
                    );
                }
            }
            match header.entry_type() {
                EntryType::GNULongName => long_path = Some(self.long(size)?),
                EntryType::GNULongLink => long_link = Some(self.long(size)?),
                EntryType::XHeader => {
                    let record = self.extension(size)?;
                    parse_pax(&record, &mut pax)
                        .ok_or_else(|| self.damaged("malformed PAX record".to_owned()))?;
                }
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => {
                    let entry = self.entry(&header, size, long_path, long_link, pax)?;
                    return Ok(Some(Entry { extensions, ..entry }));
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: HashMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Entry, UnpackError> {
        let offset = self.offset;
        let bad = |what: &str| UnpackError::Tar { offset, what: what.to_owned() };
        let number = |pax: &HashMap<Vec<u8>, Vec<u8>>, key: &str| -> Result<Option<u64>, UnpackError> {
            let Some(text) = pax.get(key.as_bytes()) else { return Ok(None) };
            let text = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
            text.map(Some).ok_or_else(|| bad("a PAX number is not a number"))
        };
        if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(bad("PAX sparse files are not supported"));
        }
        let (kind, old) = (header.entry_type(), header.as_old());
        let has_content = matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
            || !is_known(kind);
        // Links and directories may carry a size that means nothing.
        let size = if has_content { number(&pax, "size")?.unwrap_or(size) } else { 0 };
        let (mut length, mut sparse) = (size, None);
        if kind == EntryType::GNUSparse {
            let (pieces, real) = self.sparse(header, size)?;
            (length, sparse) = (real, Some(pieces));
        }
        let mtime = match pax.get(&b"mtime"[..]) {
            Some(text) => parse_time(text).ok_or_else(|| bad("PAX mtime"))?,
            None => (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        };
        let uid = number(&pax, "uid")?
            .map_or_else(|| blank_or(&old.uid, header.uid()), Ok)
            .map_err(|_| bad("uid"))?;
        let gid = number(&pax, "gid")?
            .map_or_else(|| blank_or(&old.gid, header.gid()), Ok)
            .map_err(|_| bad("gid"))?;
        let device = (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        );
        let path = pax.remove(&b"path"[..]).or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax
            .remove(&b"linkpath"[..])
            .or(long_link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = pax
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value)))
            .collect();
        xattrs.sort();
        self.left = size;
        self.padding = padding(size);
        let mode = blank_or(&old.mode, header.mode()).map_err(|_| bad("mode"))?;
        Ok(Entry {
            path,
            link,
            kind,
            size,
            length,
            mode,
            uid,
            gid,
            mtime,
            device,
            xattrs,
            sparse,
            extensions: 0,
        })
    }

    /// A checked header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.done {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => {
                    // No end marker: many tools leave it out.
                    self.done = true;
                    return Ok(None);
                }
                Ok(0) => return Err(self.damaged("ends within a header".to_owned())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(UnpackError::Read(e)),
            }
        }
        self.offset += BLOCK as u64;
        if block.iter().all(|b| *b == 0) {
            self.done = true;
            return Ok(None);
        }
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(self.damaged("header checksum does not match".to_owned()));
        }
        Ok(Some(header))
    }

    /// The content of an extension record, whose size was checked.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        self.left = size;
        self.padding = padding(size);
        let mut record = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < record.len() {
            match self.read(&mut record[filled..]).map_err(UnpackError::Read)? {
                0 => return Err(self.damaged("ends within an extension record".to_owned())),
                n => filled += n,
            }
        }
        Ok(record)
    }

    fn long(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.extension(size)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// The pieces of an old-style GNU sparse file, and its real length.
    fn sparse(&mut self, header: &Header, size: u64) -> Result<(Vec<(u64, u64)>, u64), UnpackError> {
        let gnu =
            header.as_gnu().ok_or_else(|| self.damaged("a sparse entry without GNU header".to_owned()))?;
        let real = gnu.real_size().map_err(|_| self.damaged("sparse size".to_owned()))?;
        let mut pieces = Vec::new();
        let mut more = gnu.is_extended();
        let add = |s: &tar::GnuSparseHeader, pieces: &mut Vec<(u64, u64)>| -> io::Result<()> {
            if !s.is_empty() {
                pieces.push((s.offset()?, s.length()?));
            }
            Ok(())
        };
        for s in &gnu.sparse {
            add(s, &mut pieces).map_err(|_| self.damaged("sparse map".to_owned()))?;
        }
        while more {
            let mut extension = tar::GnuExtSparseHeader::new();
            let block = extension.as_mut_bytes();
            self.reader.read_exact(block).map_err(UnpackError::Read)?;
            self.offset += BLOCK as u64;
            for s in extension.sparse() {
                add(s, &mut pieces).map_err(|_| self.damaged("sparse map".to_owned()))?;
            }
            if pieces.len() > MAX_SPARSE {
                return Err(self.damaged("a sparse file of too many pieces".to_owned()));
            }
            more = extension.is_extended();
        }
        let mut end = 0;
        let mut total = 0u64;
        for (offset, length) in &pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real);
            end = next.ok_or_else(|| self.damaged("sparse map".to_owned()))?;
            total += length;
        }
        if total != size {
            return Err(self.damaged("sparse map and size differ".to_owned()));
        }
        Ok((pieces, real))
    }

    fn skip_content(&mut self) -> Result<(), UnpackError> {
        let mut skip = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let mut buffer = [0u8; 16 << 10];
        while skip > 0 {
            let n = usize::try_from(skip).unwrap_or(usize::MAX).min(buffer.len());
            match self.reader.read(&mut buffer[..n]) {
                // Tools leave out the last padding.
                Ok(0) if skip < BLOCK as u64 => break,
                Ok(0) => return Err(self.damaged("ends within an entry".to_owned())),
                Ok(n) => {
                    skip -= n as u64;
                    self.offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(UnpackError::Read(e)),
            }
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> UnpackError {
        UnpackError::Tar { offset: self.offset, what }
    }

    /// The error for content that ends too early.
    pub(crate) fn cut(&self) -> UnpackError {
        self.damaged("ends within an entry".to_owned())
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.reader.read(&mut buf[..n])?;
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

/// A number field that a tool left empty is 0.
fn blank_or<T: Default>(field: &[u8], value: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { value }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Describes the entry that comes next, or (a global one) nothing that matters here.
fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
    )
}

fn is_known(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// `<length> <key>=<value>\n`, again and again; later ones win.
fn parse_pax(mut record: &[u8], pairs: &mut HashMap<Vec<u8>, Vec<u8>>) -> Option<()> {
    while !record.is_empty() {
        let space = record.iter().position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
        if length <= space + 1 || length > record.len() || record[length - 1] != b'\n' {
            return None;
        }
        let pair = &record[space + 1..length - 1];
        let equals = pair.iter().position(|b| *b == b'=')?;
        pairs.insert(pair[..equals].to_vec(), pair[equals + 1..].to_vec());
        record = &record[length..];
    }
    Some(())
}

/// `-?seconds[.fraction]`.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // -1.25 is 0.75 above -2.
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

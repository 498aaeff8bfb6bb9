//! A container's log file in the CRI format: `TIME STREAM TAG TEXT`, one line each.
//!
//! TIME is RFC 3339 with nanoseconds in UTC; TAG is `F` for a line that ended here and `P` for a piece of
//! a longer one (above 16 KiB, or without a newline when the stream ended), which readers join.
//!
//! Nothing here can hold up a container: what cannot be written is dropped, and a line that only half
//! fitted on the disk is cut off again, so that readers never see half a record.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::journal::note;
use crate::protocol::MAX_LOG_LINE;

/// Which of a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Its name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its place in a pair.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A container's log.
#[derive(Debug)]
pub(super) struct CriLog {
    path: PathBuf,
    file: Option<File>,
    /// The beginnings of lines whose ends have not come, per stream.
    pending: [Vec<u8>; 2],
    failing: bool,
}

impl CriLog {
    /// Opens (creates, or goes on with) the file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Some(open(path)?),
            path: path.to_owned(),
            pending: [Vec::new(), Vec::new()],
            failing: false,
        })
    }

    /// Opens the path again after a rotation; the old file stays when that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        self.failing = false;
        Ok(())
    }

    /// Logs bytes that the process has written.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut records = Vec::with_capacity(bytes.len() + 256);
        let time = format!("{:.9}", jiff::Timestamp::now());
        let pending = &mut self.pending[stream.index()];
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LOG_LINE - pending.len();
            // One byte more than fits tells whether the line ends there.
            let window = &rest[..rest.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                record(&mut records, &time, stream, b'F', &[pending, &rest[..end]]);
                pending.clear();
                rest = &rest[end + 1..];
            } else if window.len() > room {
                record(&mut records, &time, stream, b'P', &[pending, &rest[..room]]);
                pending.clear();
                rest = &rest[room..];
            } else {
                pending.extend_from_slice(rest);
                break;
            }
        }
        if pending.is_empty() {
            *pending = Vec::new();
        }
        self.append(&records);
    }

    /// The stream has ended: what has no newline is logged as a piece.
    pub(super) fn end(&mut self, stream: Stream) {
        let pending = std::mem::take(&mut self.pending[stream.index()]);
        if !pending.is_empty() {
            let mut records = Vec::new();
            let time = format!("{:.9}", jiff::Timestamp::now());
            record(&mut records, &time, stream, b'P', &[&pending]);
            self.append(&records);
        }
    }

    fn append(&mut self, records: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if records.is_empty() {
            return;
        }
        let mut written = 0;
        let error = loop {
            match file.write(&records[written..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if written == records.len() {
                self.failing = false;
                return;
            }
        };
        // Whole lines stay; the half one at the end goes.
        let whole = records[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let torn = (written - whole) as u64;
        if let (true, Ok(metadata)) = (torn > 0, file.metadata()) {
            let _ = file.set_len(metadata.len().saturating_sub(torn));
        }
        if !std::mem::replace(&mut self.failing, true) {
            note(format_args!("log {}: output is dropped: {error}", self.path.display()));
        }
    }
}

fn record(records: &mut Vec<u8>, time: &str, stream: Stream, tag: u8, text: &[&[u8]]) {
    records.extend_from_slice(time.as_bytes());
    records.push(b' ');
    records.extend_from_slice(stream.name().as_bytes());
    records.extend_from_slice(&[b' ', tag, b' ']);
    for part in text {
        records.extend_from_slice(part);
    }
    records.push(b'\n');
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests;

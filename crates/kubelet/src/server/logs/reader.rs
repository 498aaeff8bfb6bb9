//! Reads CRI log files, rotated ones first, and follows the newest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use sampan_cri::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::options::LogOptions;
use crate::cri::ContainerRuntime;
use crate::cri_log;
use crate::log_rotation::rotated_logs;

const CHUNK: usize = 64 * 1024;
/// A line longer than this is given out in pieces: nothing in the kubelet grows with what a container prints.
const MAX_LINE: usize = 1024 * 1024;
/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often the container's state is asked for while its log is quiet, in the end: at first at once, since many
/// containers are short, then at doubling distances.
const STATE_POLL: Duration = Duration::from_millis(500);

/// One reader of one container's log.
pub(super) struct LogReader {
    cri: Arc<dyn ContainerRuntime>,
    container: String,
    log: PathBuf,
    options: LogOptions,
    output: mpsc::Sender<Bytes>,
    lines: Lines,
    sent: u64,
}

/// What was read of lines that are not complete yet.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    /// Whether the last line went on in the next one: then no time is put before it.
    in_line: bool,
    rest: Rest,
}

/// What becomes of the rest of a line of which a piece was taken because it is so long.
#[derive(Clone, Copy, Default)]
enum Rest {
    /// There is no such line: what comes begins one.
    #[default]
    None,
    /// Nobody wants the line.
    Hidden,
    /// It is given out.
    Shown {
        /// Whether the container's line goes on after it.
        partial: bool,
    },
}

/// Why reading ends.
enum End {
    /// The reader went away, or has all that it wanted.
    Enough,
}

impl LogReader {
    /// Starts a task that reads; its output is the stream.
    pub(super) fn start(
        cri: Arc<dyn ContainerRuntime>,
        container: String,
        log: PathBuf,
        options: LogOptions,
    ) -> impl Stream<Item = Bytes> + Send + 'static {
        let (output, chunks) = mpsc::channel(8);
        let reader = Self { cri, container, log, options, output, lines: Lines::default(), sent: 0 };
        tokio::spawn(async move {
            let _ = reader.run().await;
        });
        ReceiverStream::new(chunks)
    }

    async fn run(mut self) -> Result<(), End> {
        let mut files = rotated_logs(&self.log);
        files.push(self.log.clone());
        let (first, offset) = match self.options.tail_lines {
            Some(lines) => {
                let files = files.clone();
                // It may have to read all of them.
                let start = tokio::task::spawn_blocking(move || tail_start(&files, lines));
                start.await.map_err(|_| End::Enough)?
            }
            None => (0, 0),
        };
        let mut current = None;
        for (index, path) in files.iter().enumerate().skip(first) {
            let Ok(mut file) = File::open(path) else { continue };
            if index == first && file.seek(SeekFrom::Start(offset)).is_err() {
                continue;
            }
            self.read_to_end(&mut file).await?;
            current = Some(file);
        }
        if self.options.follow {
            self.follow(current).await?;
        }
        Ok(())
    }

    /// Reads what is there now.
    async fn read_to_end(&mut self, file: &mut File) -> Result<bool, End> {
        let mut any = false;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).unwrap_or(0);
            if read == 0 {
                return Ok(any);
            }
            any = true;
            let out = self.lines.read(&chunk[..read], &self.options);
            self.emit(out).await?;
            // Lines that nobody wants are read as fast as the disk gives them: others have their turn too.
            tokio::task::yield_now().await;
        }
    }

    async fn follow(&mut self, mut current: Option<File>) -> Result<(), End> {
        let (mut asked, mut pause) = (Instant::now(), Duration::ZERO);
        loop {
            if self.output.is_closed() {
                return Err(End::Enough);
            }
            let read = match current.as_mut() {
                Some(file) => self.read_to_end(file).await?,
                None => false,
            };
            if read {
                tokio::time::sleep(POLL).await;
                continue;
            }
            if is_replaced(current.as_ref(), &self.log) {
                // What was written between the last read and the change.
                if let Some(file) = current.as_mut() {
                    self.read_to_end(file).await?;
                }
                match File::open(&self.log) {
                    Ok(file) => current = Some(file),
                    // There are no descriptors left, say: it is tried again.
                    Err(_) => tokio::time::sleep(POLL).await,
                }
                continue;
            }
            if asked.elapsed() >= pause {
                asked = Instant::now();
                pause = (pause * 2).clamp(POLL, STATE_POLL);
                if !self.is_running().await {
                    // What was written between the last read and the end.
                    if let Some(file) = current.as_mut() {
                        self.read_to_end(file).await?;
                    }
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_running(&self) -> bool {
        match self.cri.container_status(&self.container).await {
            Ok(status) => {
                status.state == v1::ContainerState::ContainerRunning as i32
                    || status.state == v1::ContainerState::ContainerCreated as i32
            }
            Err(status) => status.code() != tonic::Code::NotFound,
        }
    }

    async fn emit(&mut self, mut out: Vec<u8>) -> Result<(), End> {
        if let Some(limit) = self.options.limit_bytes {
            let left = usize::try_from(limit - self.sent.min(limit)).unwrap_or(usize::MAX);
            out.truncate(left);
        }
        self.sent += out.len() as u64;
        if !out.is_empty() && self.output.send(out.into()).await.is_err() {
            return Err(End::Enough);
        }
        if self.options.limit_bytes.is_some_and(|limit| self.sent >= limit) {
            return Err(End::Enough);
        }
        Ok(())
    }
}

impl Lines {
    /// What to give out now that this was read.
    fn read(&mut self, chunk: &[u8], options: &LogOptions) -> Vec<u8> {
        self.pending.extend_from_slice(chunk);
        let pending = std::mem::take(&mut self.pending);
        let mut out = Vec::new();
        let mut start = 0;
        while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
            self.piece(&pending[start..start + length], options, &mut out);
            self.end(&mut out);
            start += length + 1;
        }
        if pending.len() - start > MAX_LINE {
            self.piece(&pending[start..], options, &mut out);
        } else {
            self.pending = pending[start..].to_vec();
        }
        out
    }

    /// Appends a line or a part of one as the user wants to see it, without its end.
    fn piece(&mut self, piece: &[u8], options: &LogOptions, out: &mut Vec<u8>) {
        match self.rest {
            Rest::None => self.rest = begin_line(piece, options, self.in_line, out),
            Rest::Hidden => {}
            Rest::Shown { .. } => out.extend_from_slice(piece),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if let Rest::Shown { partial } = std::mem::take(&mut self.rest) {
            if !partial {
                out.push(b'\n');
            }
            self.in_line = partial;
        }
    }
}

/// Appends the beginning of a log line, if the user wants to see it.
fn begin_line(line: &[u8], options: &LogOptions, in_line: bool, out: &mut Vec<u8>) -> Rest {
    let Some(parsed) = cri_log::parse(line) else { return Rest::Hidden };
    if options.stream.is_some_and(|stream| stream != parsed.stream) {
        return Rest::Hidden;
    }
    if let Some(since) = options.since
        && parsed.time.parse::<Timestamp>().is_ok_and(|time| time < since)
    {
        return Rest::Hidden;
    }
    if options.timestamps && !in_line {
        out.extend_from_slice(parsed.time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(parsed.content);
    Rest::Shown { partial: parsed.partial }
}

/// Whether the path now leads to another file than the open one.
fn is_replaced(open: Option<&File>, path: &Path) -> bool {
    let Ok(now) = std::fs::metadata(path) else { return false };
    match open.and_then(|file| file.metadata().ok()) {
        Some(open) => open.ino() != now.ino() || open.dev() != now.dev(),
        None => true,
    }
}

/// Where the last `lines` lines begin: index of the file and offset in it.
fn tail_start(files: &[PathBuf], lines: u64) -> (usize, u64) {
    let mut wanted = lines;
    for (index, path) in files.iter().enumerate().rev() {
        match offset_of_last(path, wanted) {
            Ok(offset) => return (index, offset),
            Err(counted) => wanted -= counted,
        }
    }
    (0, 0)
}

/// The offset of the last `lines` lines of a file, or how many lines it has when there are fewer.
fn offset_of_last(path: &Path, lines: u64) -> Result<u64, u64> {
    let Ok(mut file) = File::open(path) else { return Err(0) };
    let mut end = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let length = end;
    if lines == 0 {
        return Ok(length);
    }
    let mut counted = 0;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let size = end.min(CHUNK as u64);
        let start = end - size;
        let part = &mut chunk[..usize::try_from(size).unwrap_or(CHUNK)];
        if file.seek(SeekFrom::Start(start)).is_err() || file.read_exact(part).is_err() {
            return Err(counted);
        }
        for (at, byte) in part.iter().enumerate().rev() {
            // The newline at the very end ends the last line; it does not begin another.
            if *byte == b'\n' && start + at as u64 + 1 < length {
                counted += 1;
                if counted == lines {
                    return Ok(start + at as u64 + 1);
                }
            }
        }
        end = start;
    }
    // The first line has no newline before it.
    if length > 0 {
        counted += 1;
    }
    if counted == lines { Ok(0) } else { Err(counted) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(dir: &Path, name: &str, lines: std::ops::Range<u32>) -> PathBuf {
        let text: String =
            lines.map(|n| format!("2026-01-01T00:00:{n:02}.000000000Z stdout F line {n}\n")).collect();
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn tail(files: &[PathBuf], lines: u64) -> Vec<String> {
        let (index, offset) = tail_start(files, lines);
        let mut text =
            std::fs::read_to_string(&files[index]).unwrap()[usize::try_from(offset).unwrap()..].to_owned();
        for file in &files[index + 1..] {
            text.push_str(&std::fs::read_to_string(file).unwrap());
        }
        text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn pod_54_tail_reaches_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = [write(dir.path(), "0.log.1", 0..3), write(dir.path(), "0.log", 3..5)];
        assert_eq!(tail(&files, 1), ["4"]);
        assert_eq!(tail(&files, 2), ["3", "4"]);
        assert_eq!(tail(&files, 4), ["1", "2", "3", "4"]);
        assert_eq!(tail(&files, 99).len(), 5);
        assert!(tail(&files, 0).is_empty());
    }

    #[test]
    fn lines_are_filtered_and_joined() {
        let (mut out, mut lines) = (Vec::new(), Lines::default());
        let options = LogOptions {
            timestamps: true,
            since: Some("2026-01-01T00:00:02Z".parse().unwrap()),
            stream: Some("stdout"),
            ..Default::default()
        };
        for line in [
            "2026-01-01T00:00:01Z stdout F early",
            "2026-01-01T00:00:03Z stderr F other",
            "2026-01-01T00:00:03Z stdout P par",
            "2026-01-01T00:00:04Z stdout F tial",
        ] {
            out.extend(lines.read(format!("{line}\n").as_bytes(), &options));
        }
        assert_eq!(String::from_utf8(out).unwrap(), "2026-01-01T00:00:03Z partial\n");
    }

    #[test]
    fn a_line_longer_than_is_kept_comes_in_pieces() {
        let long = "x".repeat(3 * MAX_LINE);
        let text = format!(
            "2026-01-01T00:00:01Z stdout F {long}\n2026-01-01T00:00:02Z stderr F {long}\n\
             2026-01-01T00:00:03Z stdout P {long}\n2026-01-01T00:00:04Z stdout F end\n"
        );
        let options = LogOptions { timestamps: true, stream: Some("stdout"), ..Default::default() };
        let (mut out, mut lines) = (Vec::new(), Lines::default());
        for chunk in text.as_bytes().chunks(CHUNK) {
            out.extend(lines.read(chunk, &options));
            assert!(lines.pending.len() <= MAX_LINE + CHUNK);
        }
        let wanted = format!("2026-01-01T00:00:01Z {long}\n2026-01-01T00:00:03Z {long}end\n");
        assert!(out == wanted.as_bytes(), "{} bytes instead of {}", out.len(), wanted.len());
    }
}

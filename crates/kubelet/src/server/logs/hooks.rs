//! What the lifecycle hooks of a container printed, from their logs beside its own: `hooks=true` in the query of a
//! log request, which `sampan logs --hooks` sends.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::options::LogOptions;
use crate::cri_log;
use crate::hooks::log;

/// Bytes that are read of one log; they are bounded when they are written.
const MAX_LOG: u64 = 1 << 20;

/// The wanted lines of all hooks of all kept runs, the oldest run first.
pub(super) fn read(container_logs: &Path, options: &LogOptions) -> String {
    let mut lines = Vec::new();
    for file in log::files(container_logs) {
        let mut bytes = Vec::new();
        let read = fs::File::open(&file).and_then(|file| file.take(MAX_LOG).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::warn!(log = %file.display(), %error, "hook log not read");
            continue;
        }
        lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(|line| shown(line, options)));
    }
    let last = options.tail_lines.map_or(lines.len(), |count| usize::try_from(count).unwrap_or(usize::MAX));
    let mut text = lines[lines.len().saturating_sub(last)..].concat();
    if let Some(limit) = options.limit_bytes {
        let mut end = usize::try_from(limit).unwrap_or(usize::MAX).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

fn shown(line: &[u8], options: &LogOptions) -> Option<String> {
    let line = cri_log::parse(line)?;
    if options.stream.is_some_and(|stream| stream != line.stream) {
        return None;
    }
    if let Some(since) = options.since
        && line.time.parse::<jiff::Timestamp>().is_ok_and(|time| time < since)
    {
        return None;
    }
    let mut text = String::new();
    if options.timestamps {
        let _ = write!(text, "{} ", line.time);
    }
    text.push_str(&String::from_utf8_lossy(line.content));
    text.push('\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hook_logs_are_shown_as_other_logs_are() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = log::directory(dir.path());
        fs::create_dir_all(&hooks).unwrap();
        fs::write(hooks.join("0-preStop.log"), "2026-01-01T00:00:01Z stderr F b\n").unwrap();
        fs::write(hooks.join("0-postStart.log"), "2026-01-01T00:00:00Z stdout F a\n").unwrap();
        let read = |options: LogOptions| read(dir.path(), &options);
        assert_eq!(read(LogOptions::default()), "a\nb\n");
        assert_eq!(read(LogOptions { tail_lines: Some(1), ..LogOptions::default() }), "b\n");
        assert_eq!(read(LogOptions { stream: Some("stdout"), ..LogOptions::default() }), "a\n");
        assert_eq!(
            read(LogOptions { timestamps: true, limit_bytes: Some(22), ..LogOptions::default() }),
            "2026-01-01T00:00:00Z a"
        );
        let since = Some("2026-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(read(LogOptions { since, ..LogOptions::default() }), "b\n");
    }
}

//! The logs of hooks: `<log_dir>/<ns>_<pod>_<uid>/<container>/hooks/<n>-<hook>.log`, where `<n>` counts the
//! container's runs as the name of its own log does. They are in the CRI's log format, readable by root alone
//! (a handler may print secrets), bounded, and go with the container's log.
//!
//! What a handler printed is in no event; here it is kept for `sampan logs --hooks`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::output::Output;
use super::{HookKind, HookTarget};
use crate::{go_duration, log_paths};

/// Bytes of a log: one that the next run of its hook would make longer begins again.
const MAX_LOG: usize = 256 << 10;
/// Bytes of a line of ours: a handler may be a long script.
const MAX_LINE: usize = 8 << 10;

/// The directory of the hooks' logs, beside a container's own.
pub(crate) fn directory(container_logs: &Path) -> PathBuf {
    container_logs.join("hooks")
}

/// Adds one run of a hook. That its log cannot be written is no reason to fail it.
pub(super) fn append(
    target: &HookTarget<'_>,
    handler: &str,
    began_at: Timestamp,
    took: Duration,
    error: Option<&str>,
    output: &Output,
) {
    let logs = log_paths::of_pod(&target.ctx.config.log_dir, target.pod).join(&target.container.name);
    let path = directory(&logs).join(format!("{}-{}.log", target.restart_count, target.hook.as_str()));
    let ended_at = target.ctx.config.clock.now();
    let text = entry(target.hook, handler, (began_at, ended_at), took, error, output);
    if let Err(error) = write(&path, &text) {
        tracing::warn!(log = %path.display(), %error, "hook log not written");
    }
}

fn entry(
    hook: HookKind,
    handler: &str,
    (began_at, ended_at): (Timestamp, Timestamp),
    took: Duration,
    error: Option<&str>,
    output: &Output,
) -> Vec<u8> {
    let line = |at: Timestamp, words: &str| {
        let mut line = format!("{at:.9} stderr F -- {} {}", hook.as_str(), words.replace('\n', " "));
        line.truncate(line.floor_char_boundary(MAX_LINE));
        line.push('\n');
        line.into_bytes()
    };
    let mut text = line(began_at, handler);
    for (stream, bytes) in &output.streams {
        for line in bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n') {
            text.extend_from_slice(format!("{ended_at:.9} {stream} F ").as_bytes());
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    let took = go_duration::format(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(0)));
    let last = match error {
        None => line(ended_at, &format!("succeeded after {took}")),
        Some(error) => {
            line(ended_at, &format!("failed after {took}: {}", error.trim_end_matches([' ', ':'])))
        }
    };
    // Short lines are mostly what stands before them: of many such lines only the first ones fit.
    text.truncate(whole_lines(&text, MAX_LOG - last.len()));
    text.extend_from_slice(&last);
    text
}

/// How much of `text` is whole lines that fit into `room`.
fn whole_lines(text: &[u8], room: usize) -> usize {
    match text.get(..room) {
        Some(beginning) => beginning.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        None => text.len(),
    }
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let room = fs::metadata(path).map_or(0, |metadata| (MAX_LOG as u64).saturating_sub(metadata.len()));
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).mode(0o600);
    let mut file = match text.len() as u64 <= room {
        true => options.append(true).open(path)?,
        false => options.truncate(true).open(path)?,
    };
    file.write_all(text)
}

/// The hooks' logs of a container, of the oldest run first.
pub(crate) fn files(container_logs: &Path) -> Vec<PathBuf> {
    by_run(container_logs).into_iter().map(|(_, _, path)| path).collect()
}

fn by_run(container_logs: &Path) -> Vec<(u32, String, PathBuf)> {
    let mut files: Vec<(u32, String, PathBuf)> = fs::read_dir(directory(container_logs))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (run, hook) = name.strip_suffix(".log")?.split_once('-')?;
            Some((run.parse().ok()?, hook.to_owned(), entry.path()))
        })
        .collect();
    files.sort();
    files
}

/// Removes the hooks' logs of the runs before `run`.
pub(crate) fn remove_before(container_logs: &Path, run: u32) {
    for (of, _, path) in by_run(container_logs) {
        if of < run {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the logs of one run's hooks.
pub(crate) fn remove(container_logs: &Path, run: u32) {
    for hook in [HookKind::PostStart, HookKind::PreStop] {
        let name = format!("{run}-{}.log", hook.as_str());
        let _ = fs::remove_file(directory(container_logs).join(name));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cri_log;

    #[test]
    fn hook_logs_are_cri_logs_in_order_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::default();
        output.stdout(b"one\ntwo\n".to_vec());
        output.stderr(b"oops".to_vec());
        let at = (Timestamp::UNIX_EPOCH, Timestamp::from_second(2).unwrap());
        let took = Duration::from_millis(1_500);
        let text =
            entry(HookKind::PreStop, "exec [x]", at, took, Some("command 'x' exited with 1: "), &output);
        let lines: Vec<(String, String)> = text
            .split(|byte| *byte == b'\n')
            .filter_map(cri_log::parse)
            .map(|line| (line.stream.to_owned(), String::from_utf8_lossy(line.content).into_owned()))
            .collect();
        let line = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
        assert_eq!(
            lines,
            [
                line("stderr", "-- preStop exec [x]"),
                line("stdout", "one"),
                line("stdout", "two"),
                line("stderr", "oops"),
                line("stderr", "-- preStop failed after 1.5s: command 'x' exited with 1"),
            ]
        );
        let logs = directory(dir.path());
        for name in ["10-postStart.log", "2-preStop.log", "2-postStart.log"] {
            for _ in 0..5 {
                write(&logs.join(name), &vec![b'x'; 100 << 10]).unwrap();
                assert!(fs::metadata(logs.join(name)).unwrap().len() <= MAX_LOG as u64);
            }
        }
        let names: Vec<_> = files(dir.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["2-postStart.log", "2-preStop.log", "10-postStart.log"]);
        remove(dir.path(), 2);
        assert_eq!(files(dir.path()).len(), 1);
    }

    #[test]
    fn an_entry_of_many_short_lines_and_a_long_handler_fits_into_a_log() {
        let mut output = Output::default();
        output.stdout(vec![b'\n'; 32 << 10]);
        output.stderr(vec![b'\n'; 32 << 10]);
        let at = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let script = format!("exec [{}]", "echo é\n".repeat(32 << 10));
        let text = entry(HookKind::PostStart, &script, at, Duration::ZERO, Some("too much"), &output);
        assert!((MAX_LOG - 100..=MAX_LOG).contains(&text.len()), "{}", text.len());
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| cri_log::parse(line.as_bytes()).is_some()));
        assert!(text.lines().next().unwrap().contains(" -- postStart exec [echo é echo é "));
        assert!(text.ends_with(" -- postStart failed after 0s: too much\n"));
    }
}

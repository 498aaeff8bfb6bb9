//! A container's last words: the termination message file, or the end of its log (ENV-44, ENV-45).

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sampan_cri::v1;

use crate::cri_log;
use crate::files;
use crate::labels;

/// Bytes of the file that are kept, from its end.
const MAX_FILE: u64 = 4_096;
/// Bytes and lines of the log that stand in for it.
const MAX_LOG: usize = 2_048;
const MAX_LOG_LINES: usize = 80;

/// The message of an ended container: the runtime's and the container's.
pub(crate) fn compose(status: &v1::ContainerStatus) -> String {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = annotation(labels::TERMINATION_MESSAGE_PATH);
    let from_file = status
        .mounts
        .iter()
        .find(|mount| !path.is_empty() && mount.container_path == path)
        .map(|mount| read_tail(Path::new(&mount.host_path), MAX_FILE))
        .unwrap_or_default();
    let fallback = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
    let own = if from_file.is_empty() && fallback && status.exit_code != 0 {
        log_tail(Path::new(&status.log_path))
    } else {
        from_file
    };
    match (status.message.is_empty(), own.is_empty()) {
        (_, true) => status.message.clone(),
        (true, false) => own,
        (false, false) => format!("{}: {own}", status.message),
    }
}

/// The last `limit` bytes of a file; empty when it cannot be read.
fn read_tail(path: &Path, limit: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        // A container may have put a fifo or a device there.
        let mut file = files::open_plain(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn log_tail(path: &Path) -> String {
    // A log line has up to 60 bytes before its content.
    let raw = read_tail(path, (MAX_LOG + MAX_LOG_LINES * 64) as u64);
    let lines: Vec<&str> = raw.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(MAX_LOG_LINES)..] {
        if let Some(line) = cri_log::parse(line.as_bytes()) {
            text.push_str(&String::from_utf8_lossy(line.content));
            if !line.partial {
                text.push('\n');
            }
        }
    }
    let mut start = text.len().saturating_sub(MAX_LOG);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::*;

    fn status(file: &str, log: &str, policy: &str, exit_code: i32, runtime: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let message = dir.path().join("message");
        let log_path = dir.path().join("0.log");
        std::fs::write(&message, file).unwrap();
        std::fs::write(&log_path, log).unwrap();
        compose(&v1::ContainerStatus {
            exit_code,
            message: runtime.into(),
            log_path: log_path.to_string_lossy().into(),
            mounts: vec![v1::Mount {
                container_path: "/dev/termination-log".into(),
                host_path: message.to_string_lossy().into(),
                ..Default::default()
            }],
            annotations: HashMap::from([
                (labels::TERMINATION_MESSAGE_PATH.to_owned(), "/dev/termination-log".to_owned()),
                (labels::TERMINATION_MESSAGE_POLICY.to_owned(), policy.to_owned()),
            ]),
            ..Default::default()
        })
    }

    #[test]
    fn env_44_45_termination_messages() {
        let log = "t stdout F one\nt stderr P tw\nt stderr F o\n";
        assert_eq!(status("DONE", log, "File", 1, ""), "DONE");
        assert_eq!(status("", log, "File", 1, ""), "");
        assert_eq!(status("", log, "FallbackToLogsOnError", 1, ""), "one\ntwo\n");
        assert_eq!(status("", log, "FallbackToLogsOnError", 0, ""), "");
        assert_eq!(status("OK", log, "FallbackToLogsOnError", 1, ""), "OK");
        assert_eq!(status("OK", log, "File", 1, "runtime"), "runtime: OK");
        assert_eq!(status(&"x".repeat(5_000), log, "File", 1, "").len(), 4_096);
        let long: String = (0..200).map(|n| format!("t stdout F {n} {}\n", "y".repeat(40))).collect();
        assert!(status("", &long, "FallbackToLogsOnError", 1, "").len() <= 2_048);
    }
}

//! The CRI's log format: `<RFC 3339 time> <stdout|stderr> <P|F> <content>`, one line per write or part of it.

/// One line of a CRI log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The time as written, RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// Whether the container's line goes on in the next log line.
    pub partial: bool,
    /// What the container wrote, without the newline.
    pub content: &'a [u8],
}

/// Takes one log line apart (without its newline); `None` when it is not in the format.
#[must_use]
pub fn parse(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = std::str::from_utf8(parts.next()?).ok()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    let partial = tags.split(':').next() == Some("P");
    Some(LogLine { time, stream, partial, content: parts.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = parse(b"2026-01-01T00:00:00.000000001Z stdout F hello  world");
        assert_eq!(
            line,
            Some(LogLine {
                time: "2026-01-01T00:00:00.000000001Z",
                stream: "stdout",
                partial: false,
                content: b"hello  world"
            })
        );
        assert_eq!(parse(b"t stderr P ").map(|line| line.partial), Some(true));
        assert_eq!(parse(b"t stderr F").map(|line| line.content.len()), Some(0));
        assert_eq!(parse(b"nonsense"), None);
    }
}

#![allow(clippy::unwrap_used)]
//! The log's format, piece by piece.

use super::*;

fn lines(path: &Path) -> Vec<(String, String, String)> {
    let text = std::fs::read(path).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let time = parts.next().unwrap();
            assert_eq!(time.len(), "2006-01-02T15:04:05.999999999Z".len());
            assert!(time.parse::<jiff::Timestamp>().is_ok());
            let mut next = || parts.next().unwrap().to_owned();
            (next(), next(), next())
        })
        .collect()
}

fn log() -> (tempfile::TempDir, PathBuf, CriLog) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let log = CriLog::open(&path).unwrap();
    (dir, path, log)
}

fn expect(path: &Path, expected: &[(&str, &str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(s, t, x)| ((*s).to_owned(), (*t).to_owned(), (*x).to_owned())).collect();
    assert_eq!(lines(path), expected);
}

#[test]
fn pod_54_lines_are_tagged_f_whatever_the_chunks() {
    let (_dir, path, mut log) = log();
    log.write(Stream::Stdout, b"one\ntw");
    log.write(Stream::Stderr, b"error\n");
    log.write(Stream::Stdout, b"o\n\n");
    expect(
        &path,
        &[("stdout", "F", "one"), ("stderr", "F", "error"), ("stdout", "F", "two"), ("stdout", "F", "")],
    );
}

#[test]
fn what_has_no_newline_at_the_end_is_a_piece() {
    let (_dir, path, mut log) = log();
    log.write(Stream::Stdout, b"no newline");
    expect(&path, &[]);
    log.end(Stream::Stdout);
    expect(&path, &[("stdout", "P", "no newline")]);
}

#[test]
fn lines_above_16_kib_are_split_and_those_of_16_kib_are_not() {
    let (_dir, path, mut log) = log();
    let mut exact = vec![b'a'; MAX_LOG_LINE];
    exact.push(b'\n');
    log.write(Stream::Stdout, &exact);
    let mut longer = vec![b'b'; 2 * MAX_LOG_LINE + 5];
    longer.push(b'\n');
    for chunk in longer.chunks(1000) {
        log.write(Stream::Stdout, chunk);
    }
    let a = "a".repeat(MAX_LOG_LINE);
    let b = "b".repeat(MAX_LOG_LINE);
    expect(&path, &[("stdout", "F", &a), ("stdout", "P", &b), ("stdout", "P", &b), ("stdout", "F", "bbbbb")]);
}

#[test]
fn reopening_goes_on_in_a_new_file() {
    let (dir, path, mut log) = log();
    log.write(Stream::Stdout, b"old\n");
    let rotated = dir.path().join("0.log.1");
    std::fs::rename(&path, &rotated).unwrap();
    log.write(Stream::Stdout, b"still old\n");
    log.reopen().unwrap();
    log.write(Stream::Stdout, b"new\n");
    expect(&rotated, &[("stdout", "F", "old"), ("stdout", "F", "still old")]);
    expect(&path, &[("stdout", "F", "new")]);
}

#[test]
fn a_full_disk_loses_lines_but_tears_none() {
    let (_dir, path, mut log) = log();
    log.write(Stream::Stdout, b"before\n");
    log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
    log.write(Stream::Stdout, b"lost\n");
    assert!(log.failing);
    log.reopen().unwrap();
    log.write(Stream::Stdout, b"after\n");
    expect(&path, &[("stdout", "F", "before"), ("stdout", "F", "after")]);
}

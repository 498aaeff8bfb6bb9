//! PEM as Go's `encoding/pem` reads it, so that a bundle of certificates means the same here as upstream: text around the
//! blocks is ignored, a block that is malformed is not there.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What begins a block's first and last line, and what ends both.
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Characters of base64 in a line (RFC 1421).
const LINE: usize = 64;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it says it is, e.g. `CERTIFICATE`.
    pub label: String,
    /// Whether it has header lines (`Proc-Type: ...`).
    pub has_headers: bool,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A block of which the last line was not met yet.
struct Open<'a> {
    label: &'a str,
    has_headers: bool,
    base64: String,
}

/// The well-formed blocks of a text, in its order.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for line in text.lines().map(str::trim_end) {
        if let Some(label) = framed(line, BEGIN) {
            // What had begun before was never ended.
            open = Some(Open { label, has_headers: false, base64: String::new() });
        } else if let Some(label) = framed(line, END) {
            let block = open.take().filter(|block| block.label == label);
            found.extend(block.and_then(|block| {
                let content = STANDARD.decode(&block.base64).ok()?;
                Some(Block { label: label.to_owned(), has_headers: block.has_headers, content })
            }));
        } else if let Some(block) = &mut open {
            match line.contains(':') && block.base64.is_empty() {
                true => block.has_headers = true,
                false => block.base64.extend(line.split_ascii_whitespace()),
            }
        }
    }
    found
}

fn framed<'a>(line: &'a str, first: &str) -> Option<&'a str> {
    line.strip_prefix(first)?.strip_suffix(DASHES)
}

/// A block without headers, ending with a line break.
pub fn encode(label: &str, content: &[u8]) -> String {
    let base64 = STANDARD.encode(content);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    for line in base64.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    let _cannot_fail = writeln!(text, "{END}{label}{DASHES}");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn env_49_what_is_around_blocks_and_what_is_no_block_is_ignored() {
        let text = format!(
            "notes\n{}-----BEGIN A-----\nnever ended\n{}-----BEGIN B-----\nKey: value\n\nAAEC\n-----END B-----\n\
             -----BEGIN C-----\n!\n-----END C-----\n-----BEGIN D-----\nAAEC\n-----END E-----\nend",
            encode("X", b"one").replace('\n', "  \r\n"),
            encode("Y", &[7; 100])
        );
        let found = blocks(&text);
        let block = |label: &str, has_headers, content: &[u8]| Block {
            label: label.into(),
            has_headers,
            content: content.into(),
        };
        assert_eq!(
            found,
            [block("X", false, b"one"), block("Y", false, &[7; 100]), block("B", true, &[0, 1, 2])]
        );
    }

    proptest! {
        #[test]
        fn env_49_what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = encode("CERTIFICATE", &content);
            prop_assert!(text.lines().all(|line| line.len() <= LINE));
            let found = blocks(&text);
            prop_assert_eq!(&found[0].content, &content);
        }

        #[test]
        fn any_text_is_survived(text in "(-----(BEGIN|END) [AB]-----\n|[a:=\\s]{0,4}|.{0,8})*") {
            let _found = blocks(&text);
        }
    }
}

//! The shim's own log: `<dir>/shim.log`, for what nobody asked for and somebody may look for.

use std::cell::Cell;
use std::fmt;
use std::io::Write;

thread_local! {
    /// What may still be written; a shim in trouble must not fill `/run`.
    static LEFT: Cell<usize> = const { Cell::new(1 << 20) };
}

/// Notes a line.
pub(super) fn note(line: fmt::Arguments<'_>) {
    let text = format!("{} {line}\n", jiff::Timestamp::now());
    let left = LEFT.get();
    if left >= text.len() {
        LEFT.set(left - text.len());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

//! The shim's own side: its process and its loop.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `sampan shim`. `args` are those after `shim`.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let _ = args.into_iter().count();
    ExitCode::FAILURE
}

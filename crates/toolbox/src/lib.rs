//! The tools of the built-in image `sampan.local/toolbox`: small programs in the sampan binary itself.
//!
//! The image holds the binary once and a link per tool; [`run`] looks at the name it was called by. There is
//! no shell: a manifest names the tool as its command (`command: ["echo", "hello"]`). The tools follow POSIX
//! in the options they have, and answer clearly for those that they don't.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these are command-line tools")]

mod applets;
mod signals;

use std::{ffi::OsString, fmt, process::ExitCode};

pub use applets::Applet;

/// Why a tool failed: what it prints after its name, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    pub(crate) fn usage(usage: &str) -> Self {
        Self { message: format!("usage: {usage}"), code: 2 }
    }
}

/// A failure with the file or address that it is about.
pub(crate) fn about<E: fmt::Display>(subject: impl fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(format!("{subject}: {error}"))
}

/// Runs `applet` with the arguments after its name.
pub fn run(applet: &Applet, args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Result<Vec<String>, OsString> = args.map(OsString::into_string).collect();
    let result = match args {
        Ok(args) => (applet.run)(&args),
        Err(bad) => Err(Failure::new(format!("argument {bad:?} is not UTF-8"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}: {}", applet.name, failure.message);
            ExitCode::from(failure.code)
        }
    }
}

//! Everything a person reads: the one place that prints.
//!
//! Results go to standard output, progress and complaints to standard error. On a terminal progress is drawn
//! as bars, elsewhere as lines; colour is never the only carrier of a meaning and `NO_COLOR` turns it off.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this module is the printer")]

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where output goes and how much of it.
#[derive(Clone)]
pub(crate) struct Printer {
    quiet: bool,
    bars: Option<Arc<MultiProgress>>,
    colour: bool,
}

/// A colour that underlines what the words say already.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
    Dim,
}

impl Printer {
    /// `quiet` keeps progress away altogether, `no_progress` turns bars into lines.
    pub(crate) fn new(quiet: bool, no_progress: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let bars = (terminal && !quiet && !no_progress).then(|| Arc::new(MultiProgress::new()));
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, bars, colour }
    }

    /// A result: one line on standard output.
    pub(crate) fn line(&self, text: impl fmt::Display) {
        self.apart(|| {
            // A closed pipe (`| head`) is no reason to fail.
            let _ = writeln!(io::stdout().lock(), "{text}");
        });
    }

    /// A result as bytes that may have no end of line.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.apart(|| {
            let mut out = io::stdout().lock();
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        });
    }

    /// What is going on: one line on standard error.
    pub(crate) fn status(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.apart(|| tell(&text));
        }
    }

    /// Something the person should know, and that does not stop us.
    pub(crate) fn warning(&self, text: impl fmt::Display) {
        let label = self.toned(Tone::Warning, "warning");
        self.apart(|| tell(format_args!("{label}: {text}")));
    }

    /// An error with its causes, each told once.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let label = self.toned(Tone::Bad, "error");
        let mut text = format!("{label}: {error}");
        let mut told = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !told.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
                told = cause;
            }
        }
        self.apart(|| tell(&text));
    }

    /// `text` in a colour, where colours are shown.
    pub(crate) fn toned(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Dim => 2,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Whether progress is drawn as bars.
    pub(crate) fn draws_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// A bar for `total` bytes (hidden where no bars are drawn).
    pub(crate) fn bar(&self, label: String, total: u64) -> ProgressBar {
        let bar = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(total)),
            None => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
        };
        let template = "{prefix:14} {bar:30} {binary_bytes:>10} of {binary_total_bytes:10} {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(label);
        bar
    }

    fn apart(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// A line on standard error. When nobody reads it any more, what we were doing still has to be ended properly.
fn tell(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A size as people read it: `45.2 MiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_with_one_digit() {
        let shown = [0, 1023, 1024, 47_395_636, 5 << 40].map(human_bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "45.2 MiB", "5.0 TiB"]);
    }
}

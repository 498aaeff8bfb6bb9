//! `sampan doctor`: prints the checks of [`doctor`](crate::doctor).

use std::process::ExitCode;

use crate::{
    cli::DoctorArgs,
    doctor::{self, Verdict},
    output::{Printer, Tone},
};

/// Exit code 1 when something that pods need is missing; a warning is none.
pub(super) fn run(args: &DoctorArgs, printer: &Printer) -> ExitCode {
    let mut failed = false;
    for check in doctor::checks(&args.directories) {
        let (mark, tone) = match &check.verdict {
            Verdict::Good => ("ok", Tone::Good),
            Verdict::Warning { .. } => ("warning", Tone::Warning),
            Verdict::Missing { .. } => ("missing", Tone::Bad),
        };
        printer.line(format!(
            "{} {}: {}",
            printer.toned(tone, &format!("{mark:8}")),
            check.name,
            check.found
        ));
        match check.verdict {
            Verdict::Good => {}
            Verdict::Warning { fix } => printer.line(format!("{:9}{fix}", "")),
            Verdict::Missing { fix } => {
                failed = true;
                printer.line(format!("{:9}{fix}", ""));
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

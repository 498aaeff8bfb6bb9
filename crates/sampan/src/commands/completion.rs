//! `sampan completion SHELL`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::{cli::Cli, output::Printer};

pub(super) fn run(shell: clap_complete::Shell, printer: &Printer) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sampan", &mut script);
    printer.raw(&script);
    ExitCode::SUCCESS
}

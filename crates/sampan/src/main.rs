//! A Kubernetes node in one binary.
//!
//! The same file plays several parts. Which one is decided here, before tokio or any thread exists, because
//! two of them (the shim and the OCI runtime) must stay single-threaded: they fork.

mod agent;
mod allocator;
mod cli;
mod commands;
mod config;
mod doctor;
mod explain;
mod manifests;
mod node;
mod output;
mod server;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::Parser;

use crate::{cli::Cli, output::Printer};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    if let Some(applet) = called.and_then(sampan_toolbox::Applet::find) {
        return sampan_toolbox::run(applet, args.into_iter().skip(1));
    }
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("shim") => {
            return sampan_shim::main(args.into_iter().skip(2), sampan_oci_runtime::run);
        }
        Some("oci") => return sampan_oci_runtime::main(args.into_iter().skip(2)),
        // The tools by their subcommand too, for an image that holds the binary without the links.
        Some("toolbox") => {
            let applet = args.get(2).and_then(|arg| arg.to_str()).and_then(sampan_toolbox::Applet::find);
            if let Some(applet) = applet {
                return sampan_toolbox::run(applet, args.into_iter().skip(3));
            }
        }
        _ => {}
    }
    let cli = Cli::parse_from(args);
    let printer = Printer::new(cli.quiet, cli.no_progress);
    match commands::run(cli, &printer) {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            ExitCode::FAILURE
        }
    }
}

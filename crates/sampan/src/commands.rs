//! What each command does, one file per command.

mod agent;
mod completion;
mod cri;
mod doctor;
mod explain;
mod image;
mod kubeconfig;
mod logs;
mod run;
mod server;
mod termination;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{
    allocator,
    cli::{Cli, Command},
    config::LogFormat,
    output::Printer,
};

/// What a node logs when `RUST_LOG` does not say.
const NODE_LOGS: &str = "info,hyper=warn,h2=warn,tower=warn";

/// Runs the command that was typed; its exit code.
pub(crate) fn run(cli: Cli, printer: &Printer) -> Result<ExitCode> {
    match cli.command {
        Command::Completion { shell } => Ok(completion::run(shell, printer)),
        Command::Doctor(args) => Ok(doctor::run(&args, printer)),
        Command::Explain(args) => {
            init_logging(LogFormat::Text, "error")?;
            runtime(1)?.block_on(explain::run(args, printer))
        }
        Command::Server(args) => server::run(*args, printer),
        Command::Agent(args) => agent::run(*args, printer),
        Command::Cri(args) => cri::run(args, printer),
        Command::Kubeconfig(args) => kubeconfig::run(&args, printer),
        Command::Image(command) => {
            init_logging(LogFormat::Text, "error")?;
            runtime(1)?.block_on(image::run(command, printer))
        }
        Command::Logs(args) => {
            init_logging(LogFormat::Text, "error")?;
            runtime(1)?.block_on(logs::run(args, printer))
        }
        Command::Run(args) => {
            init_logging(LogFormat::Text, "error")?;
            runtime(2)?.block_on(run::run(args, printer))
        }
    }
}

/// The async runtime. Few workers: a node's work is waiting, and each worker costs stack and arena memory.
fn runtime(workers: usize) -> Result<tokio::runtime::Runtime> {
    allocator::few_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.spawn(allocator::give_back());
    Ok(runtime)
}

/// Logs go to standard error; `RUST_LOG` chooses what, `default` without it.
fn init_logging(format: LogFormat, default: &str) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("setting up logging: {error}"))
}

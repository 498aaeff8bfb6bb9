//! `sampan server`.

use std::process::ExitCode;

use anyhow::Result;

use super::termination::termination;
use crate::{
    cli::ServerArgs,
    config::{ServerConfig, ServerOptions},
    output::Printer,
    server::Server,
};

pub(super) fn run(args: ServerArgs, printer: &Printer) -> Result<ExitCode> {
    let options = match &args.config {
        Some(path) => args.options.over(ServerOptions::read(path)?),
        None => args.options,
    };
    super::init_logging(options.node.log_format.unwrap_or_default(), super::NODE_LOGS)?;
    let config = ServerConfig::try_from(options)?.of_file(args.config);
    super::runtime(2)?.block_on(serve(config, printer))
}

async fn serve(config: ServerConfig, printer: &Printer) -> Result<ExitCode> {
    let stop_pods = config.node.stop_pods;
    // From here on a signal is answered by a clean stop, also while starting.
    let stopping = tokio::spawn(termination());
    let mut server = Server::start(config).await?;
    tracing::info!(address = %server.address(), kubeconfig = %server.kubeconfig().display(), "serving");
    printer.status(format!("kubectl --kubeconfig {} get nodes", server.kubeconfig().display()));
    let ended = tokio::select! {
        _ = stopping => Ok(ExitCode::SUCCESS),
        error = server.failed() => Err(error.context("the server stopped")),
    };
    tracing::info!(stop_pods, "stopping");
    server.stop(stop_pods).await;
    ended
}

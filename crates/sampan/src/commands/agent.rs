//! `sampan agent`.

use std::process::ExitCode;

use anyhow::Result;

use super::termination::termination;
use crate::{
    agent::Agent,
    cli::AgentArgs,
    config::{AgentConfig, AgentOptions},
    output::Printer,
};

pub(super) fn run(args: AgentArgs, printer: &Printer) -> Result<ExitCode> {
    let options = match &args.config {
        Some(path) => args.options.over(AgentOptions::read(path)?),
        None => args.options,
    };
    super::init_logging(options.node.log_format.unwrap_or_default(), super::NODE_LOGS)?;
    let config = AgentConfig::try_from(options)?.of_file(args.config);
    super::runtime(2)?.block_on(serve(config, printer))
}

async fn serve(config: AgentConfig, printer: &Printer) -> Result<ExitCode> {
    let stop_pods = config.node.stop_pods;
    // From here on a signal is answered by a clean stop, also while starting.
    let stopping = tokio::spawn(termination());
    let name = config.node.node_name.clone();
    let mut agent = Agent::start(config).await?;
    printer.status(format!("kubectl get node {name}"));
    let ended = tokio::select! {
        _ = stopping => Ok(ExitCode::SUCCESS),
        error = agent.failed() => Err(error.context("the agent stopped")),
    };
    tracing::info!(stop_pods, "stopping");
    agent.stop(stop_pods).await;
    ended
}

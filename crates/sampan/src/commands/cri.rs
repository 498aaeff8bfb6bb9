//! `sampan cri`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::CriArgs,
    config::{NodeConfig, NodeOptions, ServerConfig, ServerOptions},
    node,
    output::Printer,
};

pub(super) fn run(args: CriArgs, printer: &Printer) -> Result<ExitCode> {
    let node = NodeOptions {
        data_dir: args.directories.data_dir,
        run_dir: args.directories.run_dir,
        cluster_cidr: args.cluster_cidr,
        bridge: args.bridge,
        insecure_registries: args.insecure_registries,
        log_format: args.log_format,
        ..NodeOptions::default()
    };
    let typed = ServerOptions { node, ..ServerOptions::default() };
    let mut options = match &args.config {
        Some(path) => typed.over(ServerOptions::read(path)?),
        None => typed,
    };
    super::init_logging(options.node.log_format.unwrap_or_default(), super::NODE_LOGS)?;
    // The runtime is the embedded one, whatever the server of this file uses.
    options.node.container_runtime_endpoint = None;
    let config = ServerConfig::try_from(options)?.of_file(args.config).node;
    let ready = |config: &NodeConfig| {
        printer
            .status(format!("crictl --runtime-endpoint unix://{}/cri.sock info", config.run_dir.display()));
    };
    super::runtime(2)?.block_on(node::serve_cri(config, ready, super::termination::termination()))?;
    Ok(ExitCode::SUCCESS)
}

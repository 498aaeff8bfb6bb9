//! `sampan cri`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::CriArgs,
    config::{ServerConfig, ServerOptions},
    output::Printer,
    server,
};

pub(super) fn run(args: CriArgs, printer: &Printer) -> Result<ExitCode> {
    let typed = ServerOptions {
        data_dir: args.directories.data_dir,
        run_dir: args.directories.run_dir,
        cluster_cidr: args.cluster_cidr,
        bridge: args.bridge,
        insecure_registries: args.insecure_registries,
        log_format: args.log_format,
        ..ServerOptions::default()
    };
    let options = match &args.config {
        Some(path) => typed.over(ServerOptions::read(path)?),
        None => typed,
    };
    super::init_logging(options.log_format.unwrap_or_default(), "info,hyper=warn,h2=warn,tower=warn")?;
    // The runtime is the embedded one, whatever the server of this file uses.
    let options = ServerOptions { container_runtime_endpoint: None, ..options };
    let mut config = ServerConfig::try_from(options)?;
    config.file = args.config;
    let ready = |config: &ServerConfig| {
        printer
            .status(format!("crictl --runtime-endpoint unix://{}/cri.sock info", config.run_dir.display()));
    };
    super::runtime(2)?.block_on(server::serve_cri(config, ready, super::server::termination()))?;
    Ok(ExitCode::SUCCESS)
}

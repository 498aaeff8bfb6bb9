//! The server that a run talks to: one that runs already, or one of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::{
    cli::RunArgs,
    config::{Directories, NodeOptions, ServerConfig, ServerOptions},
    output::Printer,
    server::Server,
};

const DEFAULT_KUBECONFIG: &str = "/etc/sampan/kubeconfig";

/// A connection to a server, and the server itself when it is ours.
pub(super) struct Session {
    client: kube::Client,
    own: Option<Server>,
    cri_socket: PathBuf,
}

impl Session {
    /// The server named by `--kubeconfig`; else the one that runs here; else one started for this run, on
    /// free ports, with the usual data directory (so that images are kept for the next run).
    pub(super) async fn open(args: &RunArgs, printer: &Printer) -> Result<Self> {
        let file = args.config.as_deref().map(ServerOptions::read).transpose()?.unwrap_or_default();
        let directories = Directories {
            data_dir: args.directories.data_dir.clone().or(file.node.data_dir.clone()),
            run_dir: args.directories.run_dir.clone().or(file.node.run_dir.clone()),
        };
        let cri_socket = directories.cri_socket();
        if let Some(path) = &args.kubeconfig {
            let client = connect(path).await?;
            return Ok(Self { client, own: None, cri_socket });
        }
        if let Some(client) = running_server(&directories).await {
            return Ok(Self { client, own: None, cri_socket });
        }
        let beside = directories.run().join("kubeconfig");
        ensure!(!args.keep, "--keep needs a running server: start one with `sampan server`");
        let options = ServerOptions {
            node: NodeOptions {
                data_dir: directories.data_dir,
                run_dir: directories.run_dir,
                bind_address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
                kubelet_port: Some(0),
                ..NodeOptions::default()
            },
            https_listen_port: Some(0),
            write_kubeconfig: Some(beside),
            ..ServerOptions::default()
        }
        .over(file);
        printer.status("starting a server for this run");
        let server = Server::start(ServerConfig::try_from(options)?).await?;
        Ok(Self { client: server.admin_client(), own: Some(server), cri_socket })
    }

    pub(super) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Whether the server goes on without us.
    pub(super) fn is_shared(&self) -> bool {
        self.own.is_none()
    }

    /// Where pull progress can be asked for.
    pub(super) fn cri_socket(&self) -> &Path {
        &self.cri_socket
    }

    pub(super) async fn close(self) {
        if let Some(server) = self.own {
            server.stop(true).await;
        }
    }
}

/// The server that runs here with these directories, if one does.
pub(crate) async fn running_server(directories: &Directories) -> Option<kube::Client> {
    if !crate::node::is_running(directories) {
        return None;
    }
    let beside = directories.run().join("kubeconfig");
    for path in [beside.as_path(), Path::new(DEFAULT_KUBECONFIG)] {
        // Only a server of the same directories may be taken: its images and sockets are the ones meant.
        if path.exists()
            && let Ok(client) = connect(path).await
        {
            return Some(client);
        }
    }
    None
}

pub(crate) async fn connect(path: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    client
        .apiserver_version()
        .await
        .with_context(|| format!("the server of {} does not answer", path.display()))?;
    Ok(client)
}

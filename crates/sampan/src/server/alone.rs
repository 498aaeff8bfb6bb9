//! The container runtime by itself (`sampan cri`): for an upstream kubelet, `crictl`, or whoever else speaks CRI.

use anyhow::{Context, Result, ensure};

use super::{lock::RunLock, parts};
use crate::config::ServerConfig;

/// Serves CRI on `<run-dir>/cri.sock` until `stop` is done; `ready` hears when it answers. Pods go on after that.
pub(crate) async fn serve_cri(
    config: ServerConfig,
    ready: impl FnOnce(&ServerConfig),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "sampan needs root for namespaces, mounts and cgroups: run it with sudo"
    );
    // Registries are spoken to over TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    parts::make_directories(&config)?;
    let _lock = RunLock::take(&config)?;
    let runtime = parts::runtime(&config).await?.context("no runtime to serve")?;
    ready(&config);
    stop.await;
    runtime.stop().await;
    Ok(())
}

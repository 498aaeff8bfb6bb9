//! The container runtime by itself (`sampan cri`): for an upstream kubelet, `crictl`, or whoever else speaks CRI.

use anyhow::{Context, Result};

use crate::config::NodeConfig;

/// Serves CRI on `<run-dir>/cri.sock` until `stop` is done; `ready` hears when it answers. Pods go on after that.
pub(crate) async fn serve_cri(
    config: NodeConfig,
    ready: impl FnOnce(&NodeConfig),
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let _lock = super::prepare(&config)?;
    let runtime = super::runtime(&config).await?.context("no runtime to serve")?;
    ready(&config);
    stop.await;
    runtime.stop().await;
    Ok(())
}

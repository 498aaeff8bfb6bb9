//! A shutdown of the machine that waits for the pods (KEP-2000), where there is systemd: its lock is held from the start
//! on, and given back when the pods have ended by priority. Until then, or until the shutdown is called off, the node
//! takes no pods.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sampan_logind::{CONF_DIR, Error, Logind};

use crate::context::NodeContext;
use crate::node;
use crate::pods::workers::Workers;

/// How long after a lost connection the next one is tried, as upstream.
const RECONNECT: Duration = Duration::from_secs(1);

/// Holds up shutdowns until it is aborted; returns only when there is nobody to ask.
pub(crate) async fn run(ctx: Arc<NodeContext>, workers: Workers) {
    let mut told = false;
    loop {
        match hold(&ctx, &workers).await {
            // Containers, other init systems: usual, and no reason to ask for ever.
            Err(Error::Bus(error)) if !told => {
                tracing::info!(%error, "no systemd here: a shutdown of the machine does not wait for the pods");
                return;
            }
            Err(error) if !told => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a shutdown of the machine does not wait for the pods; trying again every second"
                );
                told = true;
            }
            Err(_) => {}
            Ok(()) => {
                tracing::warn!("the connection to systemd is lost: trying again every second");
                told = true;
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Holds the lock and does what shutdowns ask for, until the connection ends.
async fn hold(ctx: &NodeContext, workers: &Workers) -> Result<(), Error> {
    let logind = Logind::connect(CONF_DIR).await?;
    logind.ensure_delay(ctx.config.shutdown.iter().map(|step| step.grace_period).sum()).await?;
    // First the ears, then the lock: a shutdown in between is heard.
    let mut shutdowns = logind.shutdowns().await?;
    let mut lock = Some(logind.inhibit().await?);
    tracing::info!("a shutdown of the machine waits for the pods");
    while let Some(begins) = shutdowns.next().await {
        let what = if begins { "event" } else { "cancellation" };
        node::event(ctx, "NodeShutdown", format!("Shutdown manager detected shutdown {what}"));
        ctx.shutting_down.send_replace(begins);
        if begins {
            workers.end_by_priority().await;
            // Closing it is what lets the machine go down.
            drop(lock.take());
        } else {
            lock = Some(logind.inhibit().await?);
        }
    }
    Ok(())
}

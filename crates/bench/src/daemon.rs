//! The daemon by itself: how soon it is Ready, how soon its pods run, and what it weighs.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::{memory, node::Node, pods, report::Report};

/// How long pods have run before memory is read.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures all of it with `rounds` rounds a figure (more for single pods, fewer for fifty at once).
pub(crate) async fn measure(binary: &Path, rounds: usize, report: &mut Report) -> Result<()> {
    let mut ready = Vec::new();
    for _ in 0..rounds {
        let mut node = Node::new(binary)?;
        ready.push(node.start().await?);
        node.stop().await?;
    }
    report.figure("server start to node Ready, cold", "<= 1000 ms", ready);

    let mut node = Node::new(binary)?;
    node.start().await?;
    let client = node.client().await?;
    pods::start_and_delete(&client, 1, "warm-up").await?;
    // Idle means idle: what starting left in the allocator is part of the figure.
    report.size("daemon PSS, no pods", "<= 60 MB", memory::pss(node.pid())?);

    let mut single = Vec::new();
    for round in 0..rounds * 4 {
        single.push(pods::start_and_delete(&client, 1, &format!("one-{round}")).await?);
    }
    report.figure("pod created to Running, local image", "p50 <= 80 ms, p99 <= 250 ms", single);

    let mut many = Vec::new();
    for round in 0..rounds.div_ceil(3) {
        many.push(pods::start_and_delete(&client, 50, &format!("many-{round}")).await?);
    }
    report.figure("50 pods created at once, all Running", "<= 2000 ms", many);

    let kept = pods::start(&client, 10, "kept").await?;
    tokio::time::sleep(SETTLED).await;
    report.size("daemon PSS, 10 pods", "<= 60 MB", memory::pss(node.pid())?);
    let shims = memory::shims(node.run_dir())?;
    ensure!(shims.len() == 10, "10 pods have {} shims", shims.len());
    report.size("PSS per pod (its shim), median of 10", "<= 2 MB", memory::median(shims));
    pods::delete(&client, &kept).await?;
    node.stop().await
}

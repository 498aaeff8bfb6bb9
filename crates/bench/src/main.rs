//! Measures the promises of SPECIFICATION.md, against peers in the same run.
//!
//! Machines are shared and noisy: every figure is a median over several rounds, what is compared is measured
//! alternately in the same run, and the ratio is what counts. `cargo xtask bench` builds and runs this.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table for people")]

mod cri;
mod dns;
mod memory;
mod node;
mod podman;
mod pods;
mod pulls;
mod report;
mod services;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::{node::Node, report::Report};

#[derive(Parser)]
#[command(about = "Measures sampan, against podman where it can do the same")]
struct Options {
    /// The sampan binary (a release build)
    #[arg(long)]
    binary: PathBuf,
    /// Rounds per figure
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Only what container runtimes take over CRI
    #[arg(long)]
    only_cri: bool,
    /// Leave podman, dnsmasq and containerd out
    #[arg(long)]
    no_peers: bool,
    /// Only Services and DNS
    #[arg(long)]
    only_services: bool,
    /// Only pulls of images
    #[arg(long)]
    only_pulls: bool,
    /// Pull the large images (500 MB, 100,000 files; about fifteen minutes) instead of small ones
    #[arg(long)]
    full: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(rustix::process::geteuid().is_root(), "run it as root: it starts pods");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut report = Report::default();
    if options.only_services {
        services_and_dns(&options, &mut report).await?;
        report.print();
        return Ok(());
    }
    if options.only_cri {
        cri::measure(&options.binary, options.rounds, !options.no_peers, &mut report).await?;
        report.print();
        return Ok(());
    }
    if options.only_pulls {
        image_pulls(&options, &mut report)?;
        report.print();
        return Ok(());
    }

    let mut ready = Vec::new();
    for _ in 0..options.rounds {
        let mut node = Node::new(&options.binary)?;
        ready.push(node.start().await?);
        node.stop().await?;
    }
    report.figure("server start to node Ready, cold", "<= 1000 ms", ready);

    let mut node = Node::new(&options.binary)?;
    node.start().await?;
    let client = node.client().await?;
    pods::start_and_delete(&client, 1, "warm-up").await?;
    // Idle means idle: what starting left in the allocator is part of the figure.
    report.size("daemon PSS, no pods", "<= 60 MB", memory::pss(node.pid())?);

    let mut single = Vec::new();
    for round in 0..options.rounds * 4 {
        single.push(pods::start_and_delete(&client, 1, &format!("one-{round}")).await?);
    }
    report.figure("pod created to Running, local image", "p50 <= 80 ms, p99 <= 250 ms", single);

    let mut many = Vec::new();
    for round in 0..options.rounds.div_ceil(3) {
        many.push(pods::start_and_delete(&client, 50, &format!("many-{round}")).await?);
    }
    report.figure("50 pods created at once, all Running", "<= 2000 ms", many);

    let kept = pods::start(&client, 10, "kept").await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    report.size("daemon PSS, 10 pods", "<= 60 MB", memory::pss(node.pid())?);
    let shims = memory::shims(node.run_dir())?;
    ensure!(shims.len() == 10, "10 pods have {} shims", shims.len());
    report.size("PSS per pod (its shim), median of 10", "<= 2 MB", memory::median(shims));
    pods::delete(&client, &kept).await?;
    node.stop().await?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let peer = if options.no_peers { None } else { podman::Podman::prepare(&options.binary)? };
    let runner = node::Runner::new(&options.binary)?;
    runner.run_true()?;
    for _ in 0..options.rounds {
        ours.push(runner.run_true()?);
        if let Some(peer) = &peer {
            theirs.push(peer.run_true()?);
        }
    }
    report.figure("`sampan run` of `true`, end to end", "", ours.clone());
    if peer.is_some() {
        report.figure("`podman run --rm` of `true`, the same image", "", theirs.clone());
        report.ratio("podman / sampan", &theirs, &ours);
    }
    services_and_dns(&options, &mut report).await?;
    cri::measure(&options.binary, options.rounds, !options.no_peers, &mut report).await?;
    image_pulls(&options, &mut report)?;
    report.print();
    Ok(())
}

/// Few rounds: every one of them is many pulls.
fn image_pulls(options: &Options, report: &mut Report) -> Result<()> {
    let rounds = options.rounds.clamp(1, 5);
    pulls::measure(&options.binary, rounds, options.full, options.no_peers, report)
}

/// On a server of their own: a thousand Services are not what the other figures are about.
async fn services_and_dns(options: &Options, report: &mut Report) -> Result<()> {
    let mut node = Node::new(&options.binary)?;
    node.start().await?;
    let client = node.client().await?;
    dns::measure(&client, !options.no_peers, report).await?;
    services::measure(&node, &client, options.rounds, report).await?;
    node.stop().await
}

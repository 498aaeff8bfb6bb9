//! Measures the promises of SPECIFICATION.md, against peers in the same run.
//!
//! Machines are shared and noisy: every figure is a median over several rounds, what is compared is measured
//! alternately in the same run, and the ratio is what counts. `cargo xtask bench` builds and runs this.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table for people")]

mod cri;
mod daemon;
mod dns;
mod memory;
mod node;
mod podman;
mod pods;
mod pulls;
mod report;
mod services;
mod volumes;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{node::Node, report::Report};

#[derive(Parser)]
#[command(about = "Measures sampan, against peers that can do the same")]
struct Options {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// The sampan binary (a release build)
    #[arg(long)]
    binary: PathBuf,
    /// Rounds per figure
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Leave podman, dnsmasq, containerd and the other peers out
    #[arg(long)]
    no_peers: bool,
    /// Pull the large images (500 MB, 100,000 files; about fifteen minutes) instead of small ones
    #[arg(long)]
    full: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Start to Ready, pods from creation to Running, memory
    Daemon,
    /// `sampan run` of `true` against `podman run --rm`
    Run,
    /// Services and cluster DNS
    Services,
    /// From a change of a ConfigMap to the file in a pod
    Volumes,
    /// What container runtimes take over CRI, against containerd
    Cri,
    /// Pulls of images, against podman, containerd and skopeo with umoci
    Pulls,
}

impl Subject {
    async fn measure(self, options: &Options, report: &mut Report) -> Result<()> {
        let (binary, rounds) = (&options.binary, options.rounds);
        match self {
            Self::Daemon => daemon::measure(binary, rounds, report).await,
            Self::Run => podman::measure(binary, rounds, !options.no_peers, report),
            Self::Services => services_and_dns(options, report).await,
            Self::Volumes => volumes::measure(binary, rounds, report).await,
            Self::Cri => cri::measure(binary, rounds, !options.no_peers, report).await,
            // Few rounds: every one of them is many pulls.
            Self::Pulls => pulls::measure(binary, rounds.clamp(1, 5), options.full, options.no_peers, report),
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(rustix::process::geteuid().is_root(), "run it as root: it starts pods");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut report = Report::default();
    let mut result = Ok(());
    for subject in Subject::value_variants() {
        if result.is_ok() && (options.subjects.is_empty() || options.subjects.contains(subject)) {
            result = subject.measure(&options, &mut report).await;
        }
    }
    // What was measured before something failed is worth having.
    report.print();
    result
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

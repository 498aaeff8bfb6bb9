//! Pulls of large, many-layered and many-filed images, against Debian's tools, from one loopback registry.
//!
//! What is compared starts from nothing every time (fresh directories, warm registry), alternately, in the same
//! run. Beside the peers stands the limit: what hashing, decompressing and writing the same bytes costs on this
//! machine's cores without any network or format. Its share is the figure that counts.

mod fixture;
mod limit;
mod peers;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::{
    fixture::{Fixture, Sizes},
    peers::Peer,
};
use crate::report::Report;

/// Measures all pulls.
pub(crate) fn measure(
    binary: &std::path::Path,
    rounds: usize,
    full: bool,
    no_peers: bool,
    report: &mut Report,
) -> Result<()> {
    let sizes = if full { Sizes::FULL } else { Sizes::SMALL };
    let fixture = Fixture::make(&sizes)?;
    let peers = Peer::all(binary, fixture.dir(), no_peers)?;
    for image in fixture.images() {
        let mib = image.unpacked as f64 / f64::from(1 << 20);
        report.line(&image.title, "", format!("{mib:.0} MiB unpacked, {} images", image.names.len()));
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
        let mut limits = Vec::new();
        let mut memory = Vec::new();
        for _ in 0..rounds {
            limits.push(limit::of(&fixture, image)?);
            for (peer, times) in peers.iter().zip(&mut times) {
                let work = fixture.scratch()?;
                let started = Instant::now();
                let peak = peer.pull(&image.names, work.path())?;
                times.push(started.elapsed());
                memory.extend(peak);
                // What is deleted must not be in the next one's way.
                drop(work);
            }
        }
        let limit = median(&limits);
        report.figure(&format!("  limit: sha256 + inflate + write, {} cores", cores()), "", limits);
        let ours = median(&times[0]);
        for (peer, times) in peers.iter().zip(times) {
            let middle = median(&times);
            report.figure(&format!("  {}", peer.name()), "", times);
            if peer.is_ours() {
                let rate = image.unpacked as f64 / middle.as_secs_f64() / 1e6;
                report.line("  sampan, rate", "", format!("{rate:.0} MB/s"));
                let share = limit.as_secs_f64() / middle.as_secs_f64() * 100.0;
                report.line("  sampan, share of the limit", ">= 85 %", format!("{share:.0} %"));
            } else {
                let factor = middle.as_secs_f64() / ours.as_secs_f64();
                report.line(&format!("  {} / sampan", peer.name()), "", format!("{factor:.2} x"));
            }
        }
        if let Some(peak) = memory.iter().max() {
            let idle = peers[0].idle()?;
            report.size("  sampan, peak memory above idle", "<= 64 MB", peak.saturating_sub(idle));
        }
    }
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

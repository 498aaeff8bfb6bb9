//! Pulls of large, many-layered and many-filed images, against Debian's tools, from one loopback registry.
//!
//! What is compared starts from nothing every time (fresh directories, warm registry), alternately, in the same
//! run. Beside the peers stands the limit: what hashing, decompressing and writing the same bytes costs on this
//! machine's cores without any network or format. Its share is the figure that counts; CPU seconds say the same where
//! others are at work on the machine.

mod cpu;
mod fixture;
mod limit;
mod peers;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::{
    fixture::{Fixture, Images, Sizes},
    peers::Peer,
};
use crate::report::Report;

/// Peers that are slow are not measured again once an image has cost this much.
const PEERS_PATIENCE: Duration = Duration::from_secs(25);

/// One way to get an image: how long, and how many CPU seconds.
#[derive(Default)]
struct Taken {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Taken {
    fn measure<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (started, used) = (Instant::now(), cpu::used()?);
        let done = work()?;
        self.wall.push(started.elapsed());
        self.cpu.push(cpu::used()?.saturating_sub(used));
        Ok(done)
    }

    fn in_all(&self) -> Duration {
        self.wall.iter().sum()
    }
}

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
    let idle = peers[0].idle()?;
    for image in fixture.images() {
        let mib = image.unpacked as f64 / f64::from(1 << 20);
        report.line(&image.title, "", format!("{mib:.0} MiB unpacked, {} images", image.names.len()));
        let mut limit = Taken::default();
        let mut taken: Vec<Taken> = peers.iter().map(|_| Taken::default()).collect();
        let mut memory = Vec::new();
        let mut unable = vec![false; peers.len()];
        for _ in 0..rounds {
            let scratch = fixture.scratch()?;
            limit.measure(|| limit::of(image, scratch.path()))?;
            // What is deleted must not be in the next one's way.
            drop(scratch);
            for ((peer, taken), unable) in peers.iter().zip(&mut taken).zip(&mut unable) {
                if !peer.is_ours() && (*unable || taken.in_all() > PEERS_PATIENCE / 3) {
                    continue;
                }
                let work = fixture.scratch()?;
                match taken.measure(|| peer.pull(&image.names, work.path())) {
                    Ok(peak) => memory.extend(peak),
                    // umoci of Debian knows no zstd.
                    Err(error) if !peer.is_ours() => {
                        eprintln!("{} cannot do it: {error:#}", peer.name());
                        *unable = true;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        tell(image, &peers, &limit, &taken, report);
        if let Some(peak) = memory.iter().max() {
            report.size("  sampan, peak memory above idle", "<= 64 MB", peak.saturating_sub(idle));
        }
    }
    Ok(())
}

fn tell(image: &Images, peers: &[Peer], limit: &Taken, taken: &[Taken], report: &mut Report) {
    let title = format!("  limit: sha256 + inflate + write, {} cores", cores());
    report.figure(&title, "", limit.wall.clone());
    let ours = &taken[0];
    for (peer, taken) in peers.iter().zip(taken).filter(|(_, taken)| !taken.wall.is_empty()) {
        report.figure(&format!("  {}", peer.name()), "", taken.wall.clone());
        let middle = median(&taken.wall).as_secs_f64();
        if peer.is_ours() {
            let rate = image.unpacked as f64 / middle / 1e6;
            report.line("  sampan, rate", "", format!("{rate:.0} MB/s"));
            let share = median(&limit.wall).as_secs_f64() / middle * 100.0;
            report.line("  sampan, share of the limit", ">= 85 %", format!("{share:.0} %"));
            let (own, least) = (median(&taken.cpu).as_secs_f64(), median(&limit.cpu).as_secs_f64());
            let share = least / own * 100.0;
            let text = format!("{own:.2} s, limit {least:.2} s: {share:.0} %");
            report.line("  sampan, CPU", "", text);
        } else {
            let factor = middle / median(&ours.wall).as_secs_f64();
            let cpu = median(&taken.cpu).as_secs_f64();
            let text = format!("{factor:.2} x, CPU {cpu:.2} s");
            report.line(&format!("  {} / sampan", peer.name()), "", text);
        }
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

//! What the container runtimes take, over the protocol that they share: sampan with its embedded handler, sampan with
//! runc, and containerd with the same runc, in one run.

mod engines;
mod load;

use std::path::Path;

use anyhow::Result;

use self::engines::{Containerd, Sampan};
use self::load::Load;
use crate::{memory, report::Report};

/// Pods and containers at the same time.
const PARALLEL: [usize; 3] = [1, 10, 50];
/// Idle pods for the memory figures.
const IDLE: usize = 100;

/// Measures every engine; `rounds` cycles at parallelism 1, and as many pods as there are at a time for the others.
pub(crate) async fn measure(binary: &Path, rounds: usize, peers: bool, report: &mut Report) -> Result<()> {
    let sampan = Sampan::start(binary).await?;
    let containerd = if peers { Containerd::start(binary).await? } else { None };
    let mut loads = vec![("sampan, embedded", sampan.load("", "sampan-embedded"))];
    if Path::new("/usr/sbin/runc").exists() {
        loads.push(("sampan, runc", sampan.load("runc", "sampan-runc")));
    }
    if let Some(containerd) = &containerd {
        loads.push(("containerd, runc", containerd.load()));
    }
    for parallel in PARALLEL {
        let count = if parallel == 1 { rounds * 2 } else { parallel * 2 };
        let mut medians = Vec::new();
        for (name, load) in &loads {
            load.cycles(parallel, parallel.min(4)).await?;
            let cycles = load.cycles(parallel, count).await?;
            let promise = if *name == "sampan, embedded" && parallel == 1 { "p50 <= 40 ms" } else { "" };
            let what = format!("CRI pod + container running, {parallel} at a time: {name}");
            report.figure(&what, promise, cycles.running.clone());
            let what = format!("CRI stop + remove, {parallel} at a time: {name}");
            report.figure(&what, "", cycles.removed.clone());
            let rate = count as f64 / cycles.took.as_secs_f64();
            report.rate(&format!("CRI whole cycles, {parallel} at a time: {name}"), vec![rate]);
            medians.push((*name, cycles.running));
        }
        if let (Some((_, ours)), Some((_, theirs))) =
            (medians.first(), medians.iter().find(|(name, _)| name.starts_with("containerd")))
        {
            report.ratio(&format!("containerd / sampan, {parallel} at a time"), theirs, ours);
        }
    }
    for (name, load) in &loads {
        let pods = load.idle(1).await?;
        report.figure(&format!("ExecSync of `true`: {name}"), "", load.execs(&pods[0].1, rounds * 4).await?);
        load.remove(&pods).await?;
    }
    let pods = loads[0].1.idle(IDLE).await?;
    let shims: u64 = memory::marked(sampan.mark())?;
    report.size(&format!("{IDLE} idle pods: sampan's runtime and shims, PSS"), "", shims);
    loads[0].1.remove(&pods).await?;
    if let (Some(containerd), Some((_, load))) = (&containerd, loads.last()) {
        let pods = load.idle(IDLE).await?;
        report.size(
            &format!("{IDLE} idle pods: containerd and shims, PSS"),
            "sampan <= 1/5",
            memory::marked(containerd.mark())?,
        );
        load.remove(&pods).await?;
    }
    drop(loads);
    sampan.stop()
}

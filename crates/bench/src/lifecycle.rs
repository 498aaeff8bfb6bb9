//! Pods from creation to Ready and from deletion to gone, restarts, probes and idleness; against `podman kube play`
//! where that can do the same.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::json;

use crate::{memory, node::Node, podman::Podman, pods, report::Report};

/// How long processor time is counted, and how long pods have run before that.
const COUNTED: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(3);
/// What the kernel tells processor times in, on every architecture that we build for.
const TICKS: f64 = 100.0;
/// Pods at once.
const FEW: usize = 50;
const MANY: usize = 200;

/// Measures all of it.
pub(crate) async fn measure(binary: &Path, rounds: usize, peers: bool, report: &mut Report) -> Result<()> {
    let podman = if peers { Podman::prepare(binary)? } else { None };
    let mut node = Node::new(binary)?;
    node.start().await?;
    let client = node.client().await?;
    start_and_delete(&client, 1, "warm-up").await?;
    // First: what hundreds of pods leave to be cleared up is no idleness.
    idle(&node, &client, report).await?;

    for (count, rounds, promise) in
        [(1, rounds * 2, ""), (FEW, rounds.div_ceil(3), ""), (MANY, 1, "<= 12000 ms")]
    {
        let (mut ready, mut gone) = (Vec::new(), Vec::new());
        let (mut played, mut taken_down) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let (start, end) = start_and_delete(&client, count, &format!("pods{count}-{round}")).await?;
            ready.push(start);
            gone.push(end);
            // Podman takes half a second for each.
            if let Some(podman) = podman.as_ref().filter(|_| count == 1 || (count == FEW && round == 0)) {
                played.push(podman.play(count, 1_000_000)?);
                taken_down.push(podman.down()?);
            }
        }
        report.figure(&format!("{count} pods created, all Ready"), promise, ready.clone());
        report.figure(&format!("{count} pods deleted (they end at SIGTERM), all gone"), "", gone.clone());
        if !played.is_empty() {
            report.figure(&format!("{count} pods, `podman kube play` (host network)"), "", played.clone());
            report.figure(&format!("{count} pods, `podman kube down`"), "", taken_down.clone());
            report.ratio(&format!("podman / sampan, {count} pods Ready"), &played, &ready);
            report.ratio(&format!("podman / sampan, {count} pods gone"), &taken_down, &gone);
        }
    }
    restarts(&client, podman.as_ref(), rounds, report).await?;
    probes(&node, &client, report).await?;
    node.stop().await
}

/// From the first request to the last pod Ready, and from the first deletion to the last pod gone.
async fn start_and_delete(client: &Client, count: usize, label: &str) -> Result<(Duration, Duration)> {
    let pods = (0..count).map(|index| pods::pod(label, index, json!({}))).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let names = pods::start_until(client, label, &pods, pods::is_ready).await?;
    let ready = started.elapsed();
    let started = Instant::now();
    pods::delete(client, &names).await?;
    Ok((ready, started.elapsed()))
}

/// From a container's end (its process is killed) to its next process. A pod each time: the second restart of a pod
/// waits ten seconds everywhere.
async fn restarts(
    client: &Client,
    podman: Option<&Podman>,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let seconds = 10_000_000 + rand::random_range(0..80_000_000_u64);
        let label = format!("restart-{round}");
        let pod = pods::pod(&label, 0, json!({"command": ["sleep", seconds.to_string()]}))?;
        let names = pods::start_until(client, &label, &[pod], pods::is_ready).await?;
        // What follows a start (its last status, its events) is not part of a restart.
        tokio::time::sleep(SETTLED).await;
        ours.push(restart(seconds).await?);
        pods::delete(client, &names).await?;
        if let Some(podman) = podman {
            podman.play(1, seconds + 1)?;
            theirs.push(restart(seconds + 1).await?);
            podman.down()?;
        }
    }
    report.figure("a container's end to its next start", "p50 <= 50 ms", ours.clone());
    if !theirs.is_empty() {
        report.figure("the same in a pod of `podman kube play`", "", theirs.clone());
        report.ratio("podman / sampan, restart", &theirs, &ours);
    }
    Ok(())
}

/// Kills the one process that sleeps for so long; how long until there is another.
async fn restart(seconds: u64) -> Result<Duration> {
    let first = sleeping(seconds, &HashSet::new()).await?;
    let pid = rustix::process::Pid::from_raw(first).context("a process number")?;
    // Reading what all of them run, again and again, would take the cores from those who are measured.
    let known = processes()?;
    let started = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    sleeping(seconds, &known).await?;
    Ok(started.elapsed())
}

/// The process that sleeps for so long and is none of `known`, once it is there.
async fn sleeping(seconds: u64, known: &HashSet<i32>) -> Result<i32> {
    let ending = format!("sleep\0{seconds}\0");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for pid in processes()?.difference(known) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.ends_with(ending.as_bytes()) && line.len() < 64 {
                return Ok(*pid);
            }
        }
        ensure!(Instant::now() < deadline, "no process sleeps {seconds} s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The processes of this machine.
fn processes() -> Result<HashSet<i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What a node costs that has nothing to do.
async fn idle(node: &Node, client: &Client, report: &mut Report) -> Result<()> {
    let names = pods::start(client, FEW, "idle").await?;
    tokio::time::sleep(SETTLED).await;
    let (daemon, shims) = used(node).await?;
    report.line(&format!("idle CPU of the daemon, {FEW} pods"), "<= 0.5 % of a core", percent(daemon));
    report.line(&format!("idle CPU of {FEW} shims"), "", percent(shims));
    pods::delete(client, &names).await
}

/// Exec probes every second in every pod.
async fn probes(node: &Node, client: &Client, report: &mut Report) -> Result<()> {
    let probe =
        json!({"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10}});
    let pods =
        (0..MANY).map(|index| pods::pod("probed", index, probe.clone())).collect::<Result<Vec<_>>>()?;
    let names = pods::start_until(client, "probed", &pods, pods::is_ready).await?;
    tokio::time::sleep(SETTLED).await;
    let (daemon, shims) = used(node).await?;
    report.line(&format!("CPU of the daemon, {MANY} exec probes a second"), "", percent(daemon));
    report.line(
        &format!("CPU of the shims and what they ran, {MANY} exec probes a second"),
        "",
        percent(shims),
    );
    pods::delete(client, &names).await
}

/// Shares of a core that the daemon and its shims (with the processes they have waited for) use.
async fn used(node: &Node) -> Result<(f64, f64)> {
    let shims = || -> Result<HashMap<u32, f64>> {
        // One that is about to become a runtime looks like a shim and is gone a moment later.
        let pids = memory::shim_pids(node.run_dir())?.into_iter();
        Ok(pids.filter_map(|pid| Some((pid, processor_time(pid).ok()?))).collect())
    };
    let (daemon, before) = (processor_time(node.pid())?, shims()?);
    let started = Instant::now();
    tokio::time::sleep(COUNTED).await;
    let took = started.elapsed().as_secs_f64();
    let after = processor_time(node.pid())?;
    let of_shims: f64 = shims()?.iter().filter_map(|(pid, time)| Some(time - before.get(pid)?)).sum();
    Ok(((after - daemon) / took, of_shims / took))
}

/// User and system time in seconds, that of children which have ended included.
fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading stat")?;
    // `pid (name) state ppid ...`: utime, stime, cutime and cstime are the fields 14 to 17.
    let fields = stat.rsplit_once(')').context("stat has no name")?.1;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS)
}

fn percent(share: f64) -> String {
    format!("{:.2} % of a core", share * 100.0)
}

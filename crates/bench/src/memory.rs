//! Memory as it counts on a machine with many processes of one binary: the proportional set size.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// PSS of one process, bytes.
pub(crate) fn pss(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("reading smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().context("Pss is no number")?;
    Ok(kib * 1024)
}

/// PSS of every shim of the server with this run directory.
pub(crate) fn shims(run_dir: &Path) -> Result<Vec<u64>> {
    shim_pids(run_dir)?.into_iter().map(pss).collect()
}

/// The shims of the server with this run directory.
pub(crate) fn shim_pids(run_dir: &Path) -> Result<Vec<u32>> {
    let mark = run_dir.display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if words.get(1).is_some_and(|word| word == "shim") && words.iter().any(|word| word.starts_with(&mark))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

pub(crate) fn median(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or(0)
}

/// PSS of all processes that have this directory on their command line: a runtime and its shims.
pub(crate) fn marked(dir: std::path::PathBuf) -> Result<u64> {
    let mark = dir.display().to_string();
    let mut sum = 0;
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let cmdline = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && String::from_utf8_lossy(&cmdline).contains(&mark) {
            sum += pss(pid).unwrap_or(0);
        }
    }
    Ok(sum)
}

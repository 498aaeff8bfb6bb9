//! CPU seconds: what a pull costs also on a machine where others are at work.

use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks per second that the kernel tells everybody (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What this process and those of its children that ended have used so far, user and system.
pub(super) fn used() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // utime, stime, cutime, cstime: fields 14 to 17, counted behind the command's name.
    let ticks: f64 = fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS))
}

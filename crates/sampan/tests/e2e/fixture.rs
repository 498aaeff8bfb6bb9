//! What the tests stand on: a server, a kubectl for it, a registry.

#[path = "../../../logind/tests/it/bus.rs"]
#[allow(dead_code, reason = "what configures logind is tested there")]
pub(crate) mod bus;
pub(crate) mod containerd;
mod image;
mod line;
mod node;
pub(crate) mod peer;
mod registry;
mod remains;
mod small_disk;
pub(crate) mod streams;
mod terminal;

use std::{
    process::Output,
    time::{Duration, Instant},
};

pub(crate) use self::{
    image::{Layer, TestImage, busybox_layer, noise, tar_of, tar_with},
    line::{Fault, Line},
    node::{Node, free_port},
    registry::Registry,
    small_disk::SmallDisk,
    terminal::Terminal,
};

/// What a program said, as text.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Standard output, if the program succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// Standard error, if the program failed.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        self.err
    }
}

/// Asks until the answer is there. The bound is generous: a shared machine is slow at times, and a test that
/// passes does not wait for it.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The process whose command line holds `text`, and when it started (clock ticks since boot): a name for it that
/// no later process has.
pub(crate) fn process_of(text: &str) -> Option<(u32, u64)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).find_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The text is in command lines of clients and shims too; the container's process starts with its shell.
        if !line.starts_with("sh -c ") || !line.contains(text) {
            return None;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some((pid, started))
    })
}

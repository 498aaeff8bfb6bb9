//! One server per run directory: a lock that the kernel drops with the process, however it dies.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::config::{Directories, NodeConfig};

const FILE: &str = "server.lock";

/// The lock of a run directory, with the owner's pid inside.
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    pub(crate) fn take(config: &NodeConfig) -> Result<Self> {
        let path = config.run_dir.join(FILE);
        let mut open = OpenOptions::new();
        open.create(true).read(true).write(true).truncate(false);
        let mut file = open.open(&path).with_context(|| format!("opening {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "a server (pid {}) already uses {}: stop it, or choose another --run-dir and --data-dir",
                pid.trim(),
                config.run_dir.display()
            );
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .context("writing the lock file")?;
        Ok(Self { _file: file })
    }
}

/// Whether a server runs with these directories.
pub(crate) fn is_running(directories: &Directories) -> bool {
    held(&directories.run().join(FILE))
}

fn held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

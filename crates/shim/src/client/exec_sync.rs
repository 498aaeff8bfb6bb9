//! A command in a container, run to its end: what CRI's `ExecSync` and exec probes need.

use std::time::Duration;

use super::{Error, Output, Shim};
use crate::protocol::{ExecProcess, ExitRecord};

/// Bounds of an [`Shim::exec_sync`].
#[derive(Clone, Copy, Debug)]
pub struct ExecSyncOptions {
    /// Longest time; then the process is killed. None waits for ever.
    pub timeout: Option<Duration>,
    /// How many bytes of stdout and of stderr are kept; more is read and dropped (CRI: 16 MiB).
    pub max_output: usize,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSyncOutput {
    /// Its stdout (with a terminal: all output), up to the bound.
    pub stdout: Vec<u8>,
    /// Its stderr, up to the bound.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit: ExitRecord,
}

impl Default for ExecSyncOptions {
    fn default() -> Self {
        Self { timeout: None, max_output: 16 << 20 }
    }
}

pub(super) async fn run(
    shim: &Shim,
    process: ExecProcess,
    options: ExecSyncOptions,
) -> Result<ExecSyncOutput, Error> {
    let (container, exec) = (process.container.clone(), process.id.clone());
    let (mut stdout, mut stderr) = (Kept::new(options.max_output), Kept::new(options.max_output));
    let whole = collect(shim, process, &mut stdout, &mut stderr);
    let Some(limit) = options.timeout else {
        let exit = whole.await?;
        return Ok(ExecSyncOutput { stdout: stdout.bytes, stderr: stderr.bytes, exit });
    };
    match tokio::time::timeout(limit, whole).await {
        Ok(exit) => Ok(ExecSyncOutput { stdout: stdout.bytes, stderr: stderr.bytes, exit: exit? }),
        Err(_) => {
            // The stream is dropped with the future; the process is not, so it is ended here.
            let _ = shim.kill(&container, Some(&exec), 9, true).await;
            let seconds = u64::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            Err(Error::ExecTimeout { seconds, stdout: stdout.bytes, stderr: stderr.bytes })
        }
    }
}

/// One stream's output, up to a bound.
struct Kept {
    bytes: Vec<u8>,
    max: usize,
}

impl Kept {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = self.max.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
    }
}

async fn collect(
    shim: &Shim,
    process: ExecProcess,
    stdout: &mut Kept,
    stderr: &mut Kept,
) -> Result<ExitRecord, Error> {
    let call = "exec";
    let mut stream = shim.exec_stream(process).await?;
    loop {
        let next = stream.output.next().await;
        match next.map_err(|source| Error::Connection { call, source })? {
            Some(Output::Stdout(bytes)) => stdout.add(&bytes),
            Some(Output::Stderr(bytes)) => stderr.add(&bytes),
            Some(Output::Exit(exit)) => return Ok(exit),
            None => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(Error::Connection { call, source });
            }
        }
    }
}

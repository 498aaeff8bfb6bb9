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
    let whole = collect(shim, process, options.max_output);
    let Some(limit) = options.timeout else {
        return whole.await;
    };
    match tokio::time::timeout(limit, whole).await {
        Ok(result) => result,
        Err(_) => {
            // The stream is dropped with the future; the process is not, so it is ended here.
            let _ = shim.kill(&container, Some(&exec), 9, true).await;
            let seconds = limit.as_millis().div_ceil(1000);
            Err(Error::ExecTimeout { seconds: u64::try_from(seconds).unwrap_or(u64::MAX) })
        }
    }
}

async fn collect(shim: &Shim, process: ExecProcess, max: usize) -> Result<ExecSyncOutput, Error> {
    let call = "exec";
    let mut stream = shim.exec_stream(process).await?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let next = stream.output.next().await;
        match next.map_err(|source| Error::Connection { call, source })? {
            Some(Output::Stdout(bytes)) => keep(&mut stdout, &bytes, max),
            Some(Output::Stderr(bytes)) => keep(&mut stderr, &bytes, max),
            Some(Output::Exit(exit)) => {
                return Ok(ExecSyncOutput { stdout, stderr, exit });
            }
            None => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(Error::Connection { call, source });
            }
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let room = max.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
}

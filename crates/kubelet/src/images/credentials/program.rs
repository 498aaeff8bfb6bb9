//! Running somebody's program for a credential: bounded in time and output, killed with the pull that wanted it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// What a program may write.
const MAX_OUTPUT: u64 = 1 << 20;
/// What of its complaints is told.
const MAX_COMPLAINT: usize = 200;

/// A program that ended.
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    /// Its complaints on one line, cut short.
    pub(super) complaint: String,
}

/// Runs `program` with `input` on its standard input.
pub(super) async fn run(
    program: &Path,
    args: &[String],
    env: &[(String, String)],
    input: &[u8],
    limit: Duration,
) -> Result<Ended, String> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).envs(env.iter().cloned()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input may still answer.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), stdout, stderr) = tokio::join!(write, bounded(stdout), bounded(stderr));
        let status = child.wait().await.map_err(|error| error.to_string())?;
        let complaint: String =
            String::from_utf8_lossy(&stderr?).split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Ended {
            success: status.success(),
            stdout: stdout?,
            complaint: complaint.chars().take(MAX_COMPLAINT).collect(),
        })
    };
    match tokio::time::timeout(limit, work).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("{} did not end within {} s", program.display(), limit.as_secs())),
    }
}

async fn bounded(from: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let Some(from) = from else { return Ok(bytes) };
    from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_OUTPUT {
        Err(format!("it wrote more than {MAX_OUTPUT} bytes"))
    } else {
        Ok(bytes)
    }
}

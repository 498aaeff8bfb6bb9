//! Further processes in a container (HOOK-07: in its namespaces and cgroup), and its own streams.

use std::time::Duration;

use sampan_cri::streaming::{ExitStatus, StreamError, Streams};
use sampan_cri::v1;
use sampan_shim::client::{AttachStream, Error, ExecSyncOptions, Output, Shim};
use sampan_shim::protocol::{ExecProcess, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;

use super::Container;
use crate::ids;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::state::ContainerState;

/// CRI's bound of each stream of ExecSync.
const MAX_OUTPUT: usize = 16 << 20;
const CHUNK: usize = 32 << 10;
/// Bytes of output that come with the error of a command whose time was up.
const MAX_LAST_WORDS: usize = 3 << 10;
/// A terminal's hang-up.
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

/// Runs a command to its end and collects its output. A caller that is gone (its deadline came, its connection
/// broke) takes the command and its children along.
pub(crate) async fn exec_sync(
    runtime: &Runtime,
    container: &Container,
    request: v1::ExecSyncRequest,
) -> Result<v1::ExecSyncResponse, Status> {
    let shim = running(runtime, container)?;
    runtime.moves.expect();
    let process = process(runtime, container, &request.cmd, false, false)
        .map_err(|message| Status::internal(format!("failed to exec in container: {message}")))?;
    let mut command = Command {
        shim: shim.clone(),
        container: container.id.clone(),
        exec: process.id.clone(),
        answered: false,
    };
    let timeout = (request.timeout > 0).then(|| Duration::from_secs(request.timeout.unsigned_abs()));
    let options = ExecSyncOptions { timeout, max_output: MAX_OUTPUT };
    let output = shim.exec_sync(process, options).await;
    // One whose time was up may still be on its way into the container: it is seen to that it ends.
    command.answered = !matches!(output, Err(Error::ExecTimeout { .. }));
    drop(command);
    let output = output.map_err(|error| match error {
        Error::ExecTimeout { seconds, stdout, stderr } => Status::with_details(
            tonic::Code::DeadlineExceeded,
            format!("failed to exec in container: timeout {seconds}s exceeded: context deadline exceeded"),
            last_words(stdout, &stderr).into(),
        ),
        error => Status::unknown(format!("failed to exec in container: {}", describe(&error))),
    })?;
    Ok(v1::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.exit.code })
}

/// The end of what a command had printed when its time was up: the error's details, which no CRI client has to
/// read. They travel in a header, so there are not many.
fn last_words(mut stdout: Vec<u8>, stderr: &[u8]) -> Vec<u8> {
    stdout.extend_from_slice(stderr);
    stdout.split_off(stdout.len().saturating_sub(MAX_LAST_WORDS))
}

/// A command that ExecSync waits for. Dropped unanswered, its caller is gone.
struct Command {
    shim: Shim,
    container: String,
    exec: String,
    answered: bool,
}

impl Drop for Command {
    fn drop(&mut self) {
        let (shim, container, exec) = (self.shim.clone(), self.container.clone(), self.exec.clone());
        if self.answered {
            forget(shim, container, exec);
        } else {
            tokio::spawn(abandon(shim, container, exec));
        }
    }
}

/// Kills a command, which may still be on its way into the container, and lets the shim forget it.
async fn abandon(shim: Shim, container: String, exec: String) {
    let mut unknown = 0;
    while unknown < 5 {
        if let Err(error) = shim.kill(&container, Some(&exec), SIGKILL, true).await
            && error.is_gone()
        {
            return;
        }
        match shim.delete_exec(&container, &exec).await {
            Ok(_) => return,
            Err(error) if error.is_not_found() => unknown += 1,
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a command with a client's streams.
pub(crate) async fn exec(
    runtime: &Runtime,
    container: &Container,
    request: &v1::ExecRequest,
    streams: Streams,
) -> Result<ExitStatus, StreamError> {
    let shim = running(runtime, container).map_err(|status| StreamError::new(status.message()))?;
    let process =
        process(runtime, container, &request.cmd, request.tty, request.stdin).map_err(StreamError::new)?;
    let exec = process.id.clone();
    let mut session = Session { shim, container: container.id.clone(), exec, hang_up: request.tty };
    let stream =
        session.shim.exec_stream(process).await.map_err(|error| {
            StreamError::new(format!("failed to exec in container: {}", describe(&error)))
        })?;
    let outcome = connect(stream, streams).await;
    session.hang_up &= outcome.is_none();
    outcome.ok_or_else(|| StreamError::new("the connection to the process was lost"))
}

/// An exec that somebody talks to. Dropped with the connection: then a terminal hangs up, and the shim forgets
/// the exec once it has ended.
struct Session {
    shim: Shim,
    container: String,
    exec: String,
    hang_up: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        let (shim, container, exec) = (self.shim.clone(), self.container.clone(), self.exec.clone());
        let hang_up = self.hang_up;
        tokio::spawn(async move {
            if hang_up {
                // Whoever sat at the terminal has gone.
                let _ = shim.kill(&container, Some(&exec), SIGHUP, false).await;
            }
            forget(shim, container, exec);
        });
    }
}

/// Joins the streams of the container's main process.
pub(crate) async fn attach(
    runtime: &Runtime,
    container: &Container,
    request: &v1::AttachRequest,
    streams: Streams,
) -> Result<(), StreamError> {
    let shim = running(runtime, container).map_err(|status| StreamError::new(status.message()))?;
    let stdin = request.stdin && container.record().config.stdin;
    let stream = shim
        .attach(&container.id, None, stdin, request.stdout, request.stderr && !request.tty)
        .await
        .map_err(|error| StreamError::new(describe(&error)))?;
    connect(stream, streams).await;
    Ok(())
}

/// The shim of a running container.
pub(crate) fn running(runtime: &Runtime, container: &Container) -> Result<Shim, Status> {
    let status = container.status();
    if status.state != ContainerState::Running {
        let state = match status.state {
            ContainerState::Created => "CONTAINER_CREATED",
            _ => "CONTAINER_EXITED",
        };
        return Err(Status::failed_precondition(format!("container {} is in {state} state", container.id)));
    }
    runtime.sandbox(&container.sandbox_id)?.shim()
}

/// The container's own process with another command line.
fn process(
    runtime: &Runtime,
    container: &Container,
    command: &[String],
    tty: bool,
    stdin: bool,
) -> Result<ExecProcess, String> {
    if command.is_empty() {
        return Err("no command specified".to_owned());
    }
    let path = runtime.bundle(&container.id).join("config.json");
    let spec = std::fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let mut spec: Value = serde_json::from_slice(&spec).map_err(|error| error.to_string())?;
    let mut process = spec["process"].take();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if tty && let Some(env) = process["env"].as_array_mut() {
        let has_term = env.iter().any(|line| line.as_str().is_some_and(|line| line.starts_with("TERM=")));
        if !has_term {
            env.push(json!("TERM=xterm"));
        }
    }
    Ok(ExecProcess { container: container.id.clone(), id: ids::exec(), process, tty, stdin, attach: true })
}

/// The shim keeps an exec until it is told to forget it.
fn forget(shim: Shim, container: String, exec: String) {
    tokio::spawn(async move {
        // A process that was left behind ends some time.
        if shim.delete_exec(&container, &exec).await.is_err()
            && shim.wait(&container, Some(&exec)).await.is_ok()
        {
            let _ = shim.delete_exec(&container, &exec).await;
        }
    });
}

fn describe(error: &Error) -> String {
    match error.code() {
        Some(sampan_shim::protocol::FailureCode::Runtime) => {
            format!("failed to start exec: {}", chain(error))
        }
        _ => chain(error),
    }
}

/// Copies between a process and a client until the process has ended and its output is delivered, or the
/// client is gone (`None`).
async fn connect(stream: AttachStream, streams: Streams) -> Option<ExitStatus> {
    let (mut input, mut output) = stream.into_split();
    let Streams { stdin, mut stdout, mut stderr, mut resize } = streams;
    let feeding = tokio::spawn(async move {
        let mut stdin = stdin;
        let mut resizing = true;
        let mut buffer = vec![0u8; if stdin.is_some() { CHUNK } else { 0 }];
        while stdin.is_some() || resizing {
            tokio::select! {
                size = resize.recv(), if resizing => match size {
                    Some(size) => {
                        let size = TerminalSize { width: size.width, height: size.height };
                        if input.resize(size).await.is_err() { return; }
                    }
                    None => resizing = false,
                },
                read = read_some(&mut stdin, &mut buffer), if stdin.is_some() => match read {
                    Ok(count) if count > 0 => {
                        if input.write(&buffer[..count]).await.is_err() { return; }
                    }
                    _ => {
                        stdin = None;
                        if input.close().await.is_err() { return; }
                    }
                },
            }
        }
        // Hanging up now would end the session; the output half still needs it.
        std::future::pending::<()>().await;
    });
    let outcome = loop {
        let next = match output.next().await {
            Ok(Some(next)) => next,
            Ok(None) | Err(_) => break None,
        };
        let written = match next {
            Output::Stdout(bytes) => write_some(&mut stdout, &bytes).await,
            Output::Stderr(bytes) => write_some(&mut stderr, &bytes).await,
            Output::Exit(exit) => break Some(ExitStatus { code: exit.code }),
        };
        if written.is_err() {
            break None;
        }
    };
    feeding.abort();
    for mut writer in [stdout, stderr].into_iter().flatten() {
        let _ = writer.shutdown().await;
    }
    outcome
}

async fn read_some(
    stdin: &mut Option<sampan_cri::streaming::Reader>,
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn write_some(writer: &mut Option<sampan_cri::streaming::Writer>, bytes: &[u8]) -> std::io::Result<()> {
    match writer {
        Some(writer) => {
            writer.write_all(bytes).await?;
            writer.flush().await
        }
        None => Ok(()),
    }
}

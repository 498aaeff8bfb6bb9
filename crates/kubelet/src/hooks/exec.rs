//! `exec`: a command in the container, in its namespaces and its cgroup (HOOK-05 to HOOK-07). It gets no arguments
//! but its own and no shell.

use super::output::Output;
use super::{Cut, Failure, HookTarget};
use crate::cri::go_error;
use tokio::time::Instant;

/// Exit code that stands for a command which could not be started, as the documentation shows it.
const NOT_STARTED: i32 = 126;

pub(super) async fn run(
    target: &HookTarget<'_>,
    command: &[String],
    seconds: i64,
    output: &mut Output,
) -> Result<(), Failure> {
    let cri = &target.ctx.config.cri;
    let began = Instant::now();
    let exited = |code: i32| format!("command '{}' exited with {code}: ", command.join(" "));
    match cri.exec_sync(target.container_id, command.to_vec(), seconds).await {
        Ok(answer) => {
            output.stdout(answer.stdout);
            output.stderr(answer.stderr);
            match answer.exit_code {
                0 => Ok(()),
                code => Err(Failure::Exec { error: exited(code), message: String::new() }),
            }
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded && seconds > 0 => {
            output.stdout(status.details().to_vec());
            Err(Failure::Cut(Cut::GracePeriod, began.elapsed()))
        }
        Err(status) => match runtime_words(status.message()) {
            Some(words) => Err(Failure::Exec { error: exited(NOT_STARTED), message: words }),
            None => Err(Failure::Exec { error: go_error(&status), message: String::new() }),
        },
    }
}

/// What the OCI runtime said about a command that it could not start, without the CRI server's words around it;
/// `None` when the runtime had not come to it.
fn runtime_words(message: &str) -> Option<String> {
    const OCI: &str = "OCI runtime exec failed: ";
    if let Some(at) = message.find(OCI) {
        return Some(message[at..].to_owned());
    }
    let (_, words) = message.split_once("failed to start exec")?;
    // containerd names the exec: `failed to start exec "id": ...`.
    let words = words.split_once(": ").map_or(words, |(_, words)| words);
    Some(format!("{OCI}{words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_18_the_runtimes_words_are_found_in_what_cri_servers_say() {
        for (message, words) in [
            (
                "failed to exec in container: failed to start exec: exec: \"x\": executable file not found in $PATH",
                Some("OCI runtime exec failed: exec: \"x\": executable file not found in $PATH"),
            ),
            (
                "failed to exec in container: failed to start exec \"1\": OCI runtime exec failed: exec failed: y",
                Some("OCI runtime exec failed: exec failed: y"),
            ),
            ("container 5 is in CONTAINER_EXITED state", None),
        ] {
            assert_eq!(runtime_words(message).as_deref(), words);
        }
    }
}

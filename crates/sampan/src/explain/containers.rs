//! Containers that cannot be configured, cannot be started, or do not stay.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use super::{Finding, Story};

pub(super) fn finding(story: &Story, kind: &str, status: &ContainerStatus) -> Option<Finding> {
    let who = format!("{kind} {}", status.name);
    let state = status.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let message = waiting.message.unwrap_or_default();
        return match waiting.reason.as_deref().unwrap_or_default() {
            "CreateContainerConfigError" => Some(config_error(story, &who, &message)),
            reason @ ("CreateContainerError" | "RunContainerError") => {
                let finding =
                    Finding::new(format!("{who}: the runtime cannot start it ({reason})")).detail(&message);
                Some(start_advice(&message, finding))
            }
            "PostStartHookError" => Some(
                Finding::new(format!("{who}: its postStart hook failed, so it was stopped"))
                    .detail(message)
                    .fix("repair the hook's command or URL; it runs beside the container's own process"),
            ),
            "CrashLoopBackOff" => {
                let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
                let what = format!("{who}: it ends again and again ({} restarts)", status.restart_count);
                Some(ended(story, Finding::new(what), status, last).detail(message))
            }
            _ => None,
        };
    }
    let terminated = state.terminated?;
    if terminated.exit_code == 0 {
        return None;
    }
    Some(ended(story, Finding::new(format!("{who}: it ended and failed")), status, Some(&terminated)))
}

fn config_error(story: &Story, who: &str, message: &str) -> Finding {
    let finding = Finding::new(format!("{who}: its configuration cannot be made")).detail(message);
    let namespace = story.namespace();
    let quoted = message.split('"').nth(1).unwrap_or("NAME");
    let name = quoted.rsplit('/').next().unwrap_or(quoted);
    if message.contains("couldn't find key") {
        finding.fix(
            "the object exists but lacks that key: kubectl edit it, or mark the reference `optional: true`",
        )
    } else if message.starts_with("configmap") {
        finding.fix(format!("kubectl -n {namespace} create configmap {name} --from-literal=KEY=VALUE"))
    } else if message.starts_with("secret") {
        finding.fix(format!("kubectl -n {namespace} create secret generic {name} --from-literal=KEY=VALUE"))
    } else if message.contains("runAsNonRoot") || message.contains("non-root") {
        finding
            .fix("the image's user is root (or a name): set securityContext.runAsUser to a number above 0")
            .fix("or give up runAsNonRoot")
    } else {
        finding.fix("repair what the message names in the pod's spec")
    }
}

fn start_advice(message: &str, finding: Finding) -> Finding {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        finding.fix("the command is not in the image: check command, args and the image's entrypoint")
    } else if message.contains("permission denied") {
        finding.fix("the command is there but may not be run: check its mode and securityContext.runAsUser")
    } else if message.contains("exec format error") {
        finding.fix("the image is for another architecture")
    } else {
        finding.fix("repair what the message names; `kubectl describe pod` has all events")
    }
}

fn ended(
    story: &Story,
    finding: Finding,
    status: &ContainerStatus,
    last: Option<&ContainerStateTerminated>,
) -> Finding {
    let mut finding = finding;
    if let Some(last) = last {
        let reason = last.reason.as_deref().unwrap_or_default();
        finding =
            finding.detail(format!("exit code {}: {}", last.exit_code, meaning(last.exit_code, reason)));
        finding = finding.detail(last.message.clone().unwrap_or_default());
        if reason == "OOMKilled" {
            finding = finding.fix("give it more memory (resources.limits.memory), or make it use less");
        } else if matches!(last.exit_code, 126 | 127) {
            finding = finding.fix("check command and args: the shell could not run them");
        }
    }
    if let Some(log) = story.logs.get(&status.name) {
        finding = finding.detail("its last words:");
        for line in log.lines() {
            finding = finding.detail(format!("  | {line}"));
        }
    }
    let previous = if status.restart_count > 0 { " --previous" } else { "" };
    let (namespace, pod) = (story.namespace(), story.name());
    finding.fix(format!("kubectl -n {namespace} logs {pod} -c {}{previous}", status.name))
}

/// What an exit code says.
fn meaning(code: i32, reason: &str) -> String {
    match (reason, code) {
        ("OOMKilled", _) => "the kernel ended it because it used more memory than its limit".to_owned(),
        ("StartError", _) => "it never started".to_owned(),
        (_, 0) => "it ended well, but restartPolicy Always starts it again".to_owned(),
        (_, 126) => "its command may not be run".to_owned(),
        (_, 127) => "its command was not found".to_owned(),
        (_, 137) => {
            "it was killed (SIGKILL): out of memory, a failed liveness probe, or a stop that took too long"
                .to_owned()
        }
        (_, 139) => "it crashed (SIGSEGV)".to_owned(),
        (_, 143) => "it was asked to stop (SIGTERM)".to_owned(),
        (_, code) if code > 128 => format!("signal {}", code - 128),
        _ => "the program's own error".to_owned(),
    }
}

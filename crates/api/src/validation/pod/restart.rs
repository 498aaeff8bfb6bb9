//! How a container is restarted and stopped: its own restart policy with rules (POD-29), its stop signal (HOOK-32).

use serde_json::Value;

use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    validation::{Errors, one_of},
};

/// Rules that a container may have.
const MAX_RULES: usize = 20;
/// Exit codes that a rule may name.
const MAX_CODES: usize = 255;

/// Linux's signals by the names that the API has for them.
const LINUX: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
const WINDOWS: &[&str] = &["SIGKILL", "SIGTERM"];

/// `restartPolicy` and `restartPolicyRules` of one container.
pub(super) fn policy(container: &Value, path: &Path, out: &mut Errors) {
    let policy = str_of(container, "restartPolicy");
    if !policy.is_empty() {
        one_of(policy, &["Always", "Never", "OnFailure"], &path.child("restartPolicy"), out);
    }
    let rules = items(container, "restartPolicyRules");
    if policy.is_empty() && !rules.is_empty() {
        let message = "must specify restartPolicy when restart rules are used";
        out.push(FieldError::required(path.child("restartPolicy"), message));
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        out.push(FieldError::too_many(&path, rules.len(), MAX_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        match str_of(rule, "action") {
            "" => out.push(FieldError::required(path.child("action"), "")),
            action => one_of(action, &["Restart", "RestartAllContainers"], &path.child("action"), out),
        }
        let Some(codes) = rule.get("exitCodes").filter(|codes| codes.is_object()) else {
            out.push(FieldError::required(path.child("exitCodes"), "must be specified"));
            continue;
        };
        let path = path.child("exitCodes");
        one_of(str_of(codes, "operator"), &["In", "NotIn"], &path.child("operator"), out);
        let values = items(codes, "values").len();
        if values > MAX_CODES {
            out.push(FieldError::too_many(path.child("values"), values, MAX_CODES));
        }
    }
}

/// `lifecycle.stopSignal`: its names depend on the system that the pod names.
pub(super) fn stop_signal(container: &Value, os: &str, path: &Path, out: &mut Errors) {
    let signal = container.pointer("/lifecycle/stopSignal").and_then(Value::as_str).unwrap_or_default();
    if signal.is_empty() {
        return;
    }
    let path = path.child("lifecycle").child("stopSignal");
    match os {
        "" => {
            let message = "may not be set for containers with empty `spec.os.name`";
            out.push(FieldError::forbidden(path, message));
        }
        "windows" => one_of(signal, WINDOWS, &path, out),
        _ if is_real_time(signal) => {}
        _ => one_of(signal, LINUX, &path, out),
    }
}

/// `SIGRTMIN+1` to `SIGRTMIN+15`, `SIGRTMAX-1` to `SIGRTMAX-14`.
fn is_real_time(signal: &str) -> bool {
    let offset = |text: &str, most: u8| {
        // `from_str` would take `+1` and `01`.
        !text.starts_with(['+', '0']) && text.parse::<u8>().is_ok_and(|offset| (1..=most).contains(&offset))
    };
    signal.strip_prefix("SIGRTMIN+").is_some_and(|text| offset(text, 15))
        || signal.strip_prefix("SIGRTMAX-").is_some_and(|text| offset(text, 14))
}

//! The container's first process: command line, environment, directory, user, limits.

use sampan_cri::v1;
use serde_json::{Value, json};

use super::users::User;
use super::{Inputs, SpecError, capabilities};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `process`.
pub(super) fn process(
    inputs: &Inputs<'_>,
    security: &v1::LinuxContainerSecurityContext,
    user: &User,
) -> Result<Value, SpecError> {
    let image = &inputs.image.config;
    let args = command_line(&inputs.config.command, &inputs.config.args, &image.entrypoint, &image.cmd)
        .ok_or_else(|| SpecError::invalid("no command specified"))?;
    let mut process = json!({
        "terminal": inputs.config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
        "args": args,
        "env": environment(inputs, user),
        "cwd": directory(inputs),
        "capabilities": capabilities::capabilities(security, inputs.host.capabilities)?,
        "rlimits": [{
            "type": "RLIMIT_NOFILE",
            "hard": inputs.host.open_files,
            "soft": inputs.host.open_files,
        }],
        "noNewPrivileges": security.no_new_privs && !security.privileged,
        "oomScoreAdj": inputs.host.clamp_oom_score_adj(inputs.resources().oom_score_adj),
    });
    let profile =
        inputs.host.apparmor.profile(security).map_err(|problem| SpecError::invalid(problem.to_string()))?;
    if let Some(profile) = profile {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = selinux(security) {
        process["selinuxLabel"] = json!(label);
    }
    Ok(process)
}

/// ENV-02: a command replaces the image's entrypoint and drops its cmd; args alone replace the cmd.
fn command_line(
    command: &[String],
    args: &[String],
    entrypoint: &[String],
    cmd: &[String],
) -> Option<Vec<String>> {
    let all: Vec<String> = match (command.is_empty(), args.is_empty()) {
        (false, _) => command.iter().chain(args).cloned().collect(),
        (true, false) => entrypoint.iter().chain(args).cloned().collect(),
        (true, true) => entrypoint.iter().chain(cmd).cloned().collect(),
    };
    all.first().is_some_and(|first| !first.is_empty()).then_some(all)
}

/// ENV-03.
fn directory(inputs: &Inputs<'_>) -> String {
    let image = &inputs.image.config.working_dir;
    let wanted = if inputs.config.working_dir.is_empty() { image } else { &inputs.config.working_dir };
    if wanted.starts_with('/') { wanted.clone() } else { format!("/{wanted}") }
}

/// ENV-04: the pod wins over the image, the image over our defaults.
fn environment(inputs: &Inputs<'_>, user: &User) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match env.iter_mut().find(|(have, _)| have == name) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", DEFAULT_PATH);
    let hostname =
        if inputs.sandbox.hostname.is_empty() { &inputs.host.hostname } else { &inputs.sandbox.hostname };
    set("HOSTNAME", hostname);
    if inputs.config.tty {
        set("TERM", "xterm");
    }
    set("HOME", &user.home);
    for line in &inputs.image.config.env {
        match line.split_once('=') {
            Some((name, value)) => set(name, value),
            None => set(line, ""),
        }
    }
    for pair in &inputs.config.envs {
        set(&pair.key, &pair.value);
    }
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn selinux(security: &v1::LinuxContainerSecurityContext) -> Option<String> {
    let options = security.selinux_options.as_ref()?;
    let enabled = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    (enabled && !options.r#type.is_empty())
        .then(|| format!("{}:{}:{}:{}", options.user, options.role, options.r#type, options.level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn env_02_command_and_args_against_the_image() {
        let line = |command: &str, args: &str| {
            command_line(&words(command), &words(args), &words("/entry -x"), &words("serve"))
        };
        assert_eq!(line("", ""), Some(words("/entry -x serve")));
        assert_eq!(line("", "b"), Some(words("/entry -x b")));
        assert_eq!(line("a", ""), Some(words("a")));
        assert_eq!(line("a", "b"), Some(words("a b")));
        assert_eq!(command_line(&[], &[], &[], &[]), None);
    }
}

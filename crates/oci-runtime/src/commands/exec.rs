//! `exec`: another process in a running container.

use std::path::Path;
use std::process::ExitCode;

use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitStatus, waitpid};
use serde_json::{Value, json};

use super::{load, process_error};
use crate::bundle::{self, Specs, cgroups_path};
use crate::command_line::Exec;
use crate::user_namespace::UserNamespace;
use crate::{Error, Result, cgroups, journal, limits, read_json};

pub(crate) fn run(root: &Path, exec: &Exec) -> Result<ExitCode> {
    let id = &exec.id;
    let container = load(root, id)?;
    match container.status() {
        ContainerStatus::Running => {}
        ContainerStatus::Paused => return Err(Error::text("cannot exec in a paused container")),
        _ => return Err(Error::text("cannot exec in a stopped container")),
    }
    let specs = Specs::of(root, id);
    let config = specs.original()?;
    let process = match &exec.process {
        Some(path) => read_json(path)?,
        None => from_flags(&config, exec)?,
    };
    let terminal = process.get("terminal").and_then(Value::as_bool) == Some(true);
    if terminal && !(exec.detach && exec.console_socket.is_some()) {
        return Err(Error::text("a terminal needs --detach and --console-socket"));
    }
    let mut executor = bundle::process(&process, specs.filter())?;
    let mut adapted = process.clone();
    bundle::adapt_process(&mut adapted);
    if let Some(namespace) = UserNamespace::of(&config)? {
        executor.join(namespace.member(&process)?);
        // It becomes that user last.
        adapted["user"] = json!({"uid": 0, "gid": 0});
    }
    let file = specs.write_process(&adapted)?;

    let mut whispers = journal::listen();
    let score = process.get("oomScoreAdj").or_else(|| config.pointer("/process/oomScoreAdj"));
    if let Some(score) = score.and_then(Value::as_i64) {
        limits::set_oom_score(score);
    }
    let _ = cgroups::join_plain(&cgroups_path(&config, id))?;
    let built = (|| {
        ContainerBuilder::new(id.clone(), SyscallType::default())
            .with_root_path(root)?
            .with_pid_file(exec.pid_file.as_ref())?
            .with_console_socket(exec.console_socket.as_ref())
            .with_preserved_fds(exec.preserve_fds)
            .with_executor(executor)
            .as_tenant()
            .with_process(Some(&file))
            .with_detach(exec.detach)
            .as_sibling(exec.detach)
            .build()
    })();
    let _ = std::fs::remove_file(&file);
    tidy(&root.join(id));
    let pid = built.map_err(|error| {
        let why = process_error(error, &mut whispers);
        Error::text(format!("exec failed: unable to start container process: {why}"))
    })?;
    if exec.detach {
        return Ok(ExitCode::SUCCESS);
    }
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(255))),
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(255)))
        }
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(error) => Err(Error::text(format!("wait for {pid}: {error}"))),
    }
}

/// libcontainer leaves each exec's sockets behind.
fn tidy(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("tenant-") && name.ends_with(".sock");
        let old = || {
            let metadata = entry.metadata().and_then(|metadata| metadata.modified());
            metadata.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60))
        };
        // Another exec may be using its own right now.
        if ours && old() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The container's own process with the command line's changes.
fn from_flags(config: &Value, exec: &Exec) -> Result<Value> {
    if exec.command.is_empty() {
        return Err(Error::text("process args cannot be empty"));
    }
    let mut process = config.get("process").cloned().unwrap_or_else(|| json!({}));
    process["args"] = json!(exec.command);
    process["terminal"] = json!(exec.tty);
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(user) = &exec.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            let number = text.parse::<u32>();
            number.map_err(|_| Error::text(format!("--user: not a number: {text:?}")))
        };
        let gid = if gid.is_empty() { 0 } else { number(gid)? };
        process["user"] = json!({"uid": number(uid)?, "gid": gid});
    }
    if let Some(env) = process.get_mut("env").and_then(Value::as_array_mut) {
        for entry in &exec.env {
            let name = entry.split('=').next().unwrap_or_default();
            let same = format!("{name}=");
            env.retain(|old| old.as_str().is_none_or(|old| !old.starts_with(&same)));
            env.push(json!(entry));
        }
    }
    Ok(process)
}

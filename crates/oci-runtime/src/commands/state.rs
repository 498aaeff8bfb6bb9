//! `state`, `list` and `ps`: what there is.

use std::io::Write;
use std::path::Path;

use libcontainer::container::{Container, ContainerStatus};
use serde_json::{Value, json};

use super::load;
use crate::bundle::{Specs, cgroups_path};
use crate::{Error, Result, cgroups};

pub(crate) fn run(root: &Path, id: &str) -> Result<()> {
    let container = load(root, id)?;
    print(&describe(root, id, &container))
}

fn describe(root: &Path, id: &str, container: &Container) -> Value {
    let stopped = container.status() == ContainerStatus::Stopped;
    let pid = container.pid().filter(|_| !stopped).map_or(0, nix::unistd::Pid::as_raw);
    let specs = Specs::of(root, id);
    let bundle = specs.bundle().unwrap_or_else(|| container.bundle().clone());
    json!({
        "ociVersion": "1.0.2",
        "id": id,
        "status": container.status().to_string().to_lowercase(),
        "pid": pid,
        "bundle": bundle,
        "annotations": container.state.annotations.clone().unwrap_or_default(),
        "created": container.created().map(|time| time.to_rfc3339()),
        "owner": "",
    })
}

pub(crate) fn list(root: &Path, format: &str, quiet: bool) -> Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if let Ok(container) = load(root, &id) {
            found.push(describe(root, &id, &container));
        }
    }
    if format == "json" {
        return print(&json!(found));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
    let mut lines = String::new();
    if !quiet {
        lines.push_str("ID  PID  STATUS  BUNDLE\n");
    }
    for one in &found {
        let columns: &[&str] = if quiet { &["id"] } else { &["id", "pid", "status", "bundle"] };
        let columns: Vec<String> = columns.iter().map(|column| text(&one[*column])).collect();
        lines.push_str(&columns.join("  "));
        lines.push('\n');
    }
    write(&lines)
}

pub(crate) fn processes(root: &Path, id: &str, format: &str) -> Result<()> {
    load(root, id)?;
    let pids = cgroups::processes(&cgroups_path(&Specs::of(root, id).original()?, id));
    if format == "json" {
        return print(&json!(pids));
    }
    let lines: Vec<String> = pids.iter().map(ToString::to_string).collect();
    write(&format!("PID\n{}\n", lines.join("\n")))
}

/// Prints a document.
pub(super) fn print(value: &Value) -> Result<()> {
    write(&format!("{value:#}\n"))
}

fn write(text: &str) -> Result<()> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(Error::file("write", Path::new("/dev/stdout")))
}

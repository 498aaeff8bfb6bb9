//! A container's configuration: what the bundle says, and what libcontainer is told.
//!
//! libcontainer reads `config.json` itself, so it gets a copy of its own under `<root>/.specs/<id>` from which
//! everything is taken out that is done here instead: capabilities and seccomp (the filter must be loaded
//! after libcontainer has done all its work but with CAP_SYS_ADMIN still held), the environment, scores and
//! limits that the kernel would refuse. A symbolic link beside it leads to the real bundle.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::executor::Process;
use crate::limits;
use crate::{Error, Result, read_json};

/// What is kept of a container besides libcontainer's own state.
#[derive(Debug)]
pub(crate) struct Specs {
    dir: PathBuf,
}

impl Specs {
    /// Those of a container.
    pub(crate) fn of(root: &Path, id: &str) -> Self {
        Self { dir: root.join(".specs").join(id) }
    }

    /// The directory that libcontainer takes for the bundle.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The real bundle.
    pub(crate) fn bundle(&self) -> Option<PathBuf> {
        fs::read_link(self.dir.join("bundle")).ok()
    }

    /// The bundle's own configuration.
    pub(crate) fn original(&self) -> Result<Value> {
        read_json(&self.dir.join("bundle").join("config.json"))
    }

    /// The compiled seccomp filter; empty without one.
    pub(crate) fn filter(&self) -> Vec<u8> {
        fs::read(self.dir.join("seccomp.bpf")).unwrap_or_default()
    }

    /// Writes what libcontainer and later commands read.
    pub(crate) fn write(&self, bundle: &Path, config: &Value, filter: &[u8]) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Error::file("make", &self.dir))?;
        let link = self.dir.join("bundle");
        let _ = fs::remove_file(&link);
        symlink(bundle, &link).map_err(Error::file("make", &link))?;
        write_private(&self.dir.join("config.json"), config.to_string().as_bytes())?;
        write_private(&self.dir.join("seccomp.bpf"), filter)
    }

    /// Notes when the container's first process began, by which it is known from a later one with its number.
    pub(crate) fn note_init(&self, begin: u64) -> Result<()> {
        write_private(&self.dir.join("init"), begin.to_string().as_bytes())
    }

    /// What [`Specs::note_init`] noted.
    pub(crate) fn init_begin(&self) -> Option<u64> {
        fs::read_to_string(self.dir.join("init")).ok()?.parse().ok()
    }

    /// Writes an exec's process for libcontainer.
    pub(crate) fn write_process(&self, process: &Value) -> Result<PathBuf> {
        let path = self.dir.join(format!("exec-{}.json", std::process::id()));
        write_private(&path, process.to_string().as_bytes())?;
        Ok(path)
    }

    /// Removes all of it.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("open", path))?;
    std::io::Write::write_all(&mut file, bytes).map_err(Error::file("write", path))
}

/// The cgroup path of a configuration, absolute; without one it is `/<id>`.
pub(crate) fn cgroups_path(config: &Value, id: &str) -> PathBuf {
    let path = config.pointer("/linux/cgroupsPath").and_then(Value::as_str);
    match path {
        Some(path) if !path.is_empty() => Path::new("/").join(path.trim_start_matches('/')),
        _ => Path::new("/").join(id),
    }
}

/// Turns a bundle's configuration into libcontainer's copy.
pub(crate) fn adapt(config: &mut Value, bundle: &Path, id: &str) -> Result<()> {
    let cgroups = cgroups_path(config, id);
    let root = config
        .pointer("/root/path")
        .and_then(Value::as_str)
        .ok_or_else(|| Error::text("config.json: root.path is missing"))?;
    let root = bundle.join(root);
    let process = config.get_mut("process").ok_or_else(|| Error::text("config.json: process is missing"))?;
    adapt_process(process);
    config["root"]["path"] = json!(root);
    let linux = &mut config["linux"];
    if !linux.is_object() {
        *linux = json!({});
    }
    linux["cgroupsPath"] = json!(cgroups);
    // runc's recursive names; libcontainer knows the others only, and is always recursive.
    if let Some(name) = linux.get("rootfsPropagation").and_then(Value::as_str) {
        linux["rootfsPropagation"] = json!(name.strip_prefix('r').unwrap_or(name));
    }
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("seccomp");
    }
    Ok(())
}

/// Turns a process's configuration into libcontainer's copy.
pub(crate) fn adapt_process(process: &mut Value) {
    limits::clamp_rlimits(process);
    if let Some(process) = process.as_object_mut() {
        process.remove("capabilities");
        process.remove("oomScoreAdj");
        process.remove("consoleSize");
        // Without HOME libcontainer asks the C library for it, which in a static binary would load the
        // container's own NSS modules into this still privileged process.
        process.insert("env".into(), json!(["PATH=/", "HOME=/"]));
    }
}

/// The process that the executor will run.
pub(crate) fn process(process: &Value, filter: Vec<u8>) -> Result<Process> {
    Process::new(process, filter).map_err(Error::text)
}

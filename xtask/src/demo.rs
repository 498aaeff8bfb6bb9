//! The main job, once: build, start, run a pod, show what it prints, clean up.

use anyhow::Result;

use crate::command::{self, built, cargo};

/// Runs `examples/hello.yaml` in directories of its own, so that it neither needs nor disturbs a server that
/// runs on the machine.
pub(crate) fn run() -> Result<()> {
    cargo(["build", "--release", "--package", "sampan"])?;
    let binary = built("release").join("sampan");
    let scratch = std::env::temp_dir().join(format!("sampan-demo-{}", std::process::id()));
    let (data, sockets) = (scratch.join("data"), scratch.join("run"));
    let result = command::run(
        &binary.to_string_lossy(),
        [
            "run".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--run-dir".as_ref(),
            sockets.as_os_str(),
            "examples/hello.yaml".as_ref(),
        ],
    );
    let cleaned = std::fs::remove_dir_all(&scratch);
    result?;
    Ok(cleaned?)
}

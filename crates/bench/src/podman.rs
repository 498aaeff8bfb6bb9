//! `sampan run` against Debian's podman with the same image, in storage of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{node::Runner, report::Report};

/// The image's name in podman's storage.
const IMAGE: &str = "localhost/sampan-bench";

/// `true` from the command to its prompt, by turns.
pub(crate) fn measure(binary: &Path, rounds: usize, with_peer: bool, report: &mut Report) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let peer = if with_peer { Podman::prepare(binary)? } else { None };
    let runner = Runner::new(binary)?;
    runner.run_true()?;
    for _ in 0..rounds {
        ours.push(runner.run_true()?);
        if let Some(peer) = &peer {
            theirs.push(peer.run_true()?);
        }
    }
    report.figure("`sampan run` of `true`, end to end", "", ours.clone());
    if peer.is_some() {
        report.figure("`podman run --rm` of `true`, the same image", "", theirs.clone());
        report.ratio("podman / sampan", &theirs, &ours);
    }
    Ok(())
}

/// Podman with directories of its own.
pub(crate) struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    /// Loads an image with the same program into a fresh storage; `None` without a podman on the machine.
    pub(crate) fn prepare(binary: &Path) -> Result<Option<Self>> {
        if Command::new("podman").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("podman is not installed (`cargo xtask setup --peers`): nothing to compare with");
            return Ok(None);
        }
        let podman = Self { dir: tempfile::Builder::new().prefix("sampan-bench-podman-").tempdir()? };
        let root = podman.dir.path().join("rootfs");
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy(binary, root.join("bin/sampan"))?;
        for applet in ["true", "sleep"] {
            std::os::unix::fs::symlink("sampan", root.join("bin").join(applet))?;
        }
        // Debian's podman comes without the program of its pause image: the image's own sleep does as well. Limits that
        // this machine may not raise are named (podman swaps soft and hard of those in a configuration).
        std::fs::write(
            podman.dir.path().join("containers.conf"),
            format!(
                "[engine]\ninfra_image = {IMAGE:?}\ninfra_command = \"/bin/sleep infinity\"\n[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n"
            ),
        )?;
        let archive = podman.dir.path().join("rootfs.tar");
        let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status()?;
        ensure!(packed.success(), "tar failed");
        let imported = podman
            .command()
            .args(["import", "--change", "CMD [\"/bin/sleep\",\"infinity\"]"])
            .arg(&archive)
            .arg(IMAGE)
            .output()?;
        ensure!(imported.status.success(), "podman import: {}", String::from_utf8_lossy(&imported.stderr));
        Ok(Some(podman))
    }

    /// From the command to its prompt.
    fn run_true(&self) -> Result<Duration> {
        let started = Instant::now();
        let output = self
            .command()
            // What this machine needs to run podman at all: no systemd, and limits that may not be raised.
            .args([
                "run",
                "--rm",
                "--ulimit",
                "nofile=1024:20000",
                "--ulimit",
                "nproc=4096:4096",
                IMAGE,
                "/bin/true",
            ])
            .output()?;
        ensure!(output.status.success(), "podman run: {}", String::from_utf8_lossy(&output.stderr));
        Ok(started.elapsed())
    }

    /// `kube play` of pods with one sleeping container each, in the host's network: how long until they run.
    pub(crate) fn play(&self, pods: usize, seconds: u64) -> Result<Duration> {
        let documents = (0..pods).map(|index| {
            serde_json::json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("bench-{index}")},
                "spec": {"restartPolicy": "Always", "containers": [
                    {"name": "c", "image": IMAGE, "command": ["/bin/sleep", seconds.to_string()]},
                ]},
            })
        });
        let manifest: Vec<String> = documents.map(|document| document.to_string()).collect();
        std::fs::write(self.manifest(), manifest.join("\n---\n"))?;
        self.kube(&["play", "--network", "host"])
    }

    /// `kube down` of what was played last.
    pub(crate) fn down(&self) -> Result<Duration> {
        self.kube(&["down"])
    }

    fn kube(&self, arguments: &[&str]) -> Result<Duration> {
        let started = Instant::now();
        let output = self.command().arg("kube").args(arguments).arg(self.manifest()).output()?;
        ensure!(output.status.success(), "podman kube: {}", String::from_utf8_lossy(&output.stderr));
        Ok(started.elapsed())
    }

    fn manifest(&self) -> std::path::PathBuf {
        self.dir.path().join("pods.yaml")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"));
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"]).stdin(Stdio::null());
        command.env("CONTAINERS_CONF", self.dir.path().join("containers.conf"));
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The storage driver mounts its root on itself.
        let _ = Command::new("umount").args(["-R", "-l"]).arg(self.dir.path().join("root/overlay")).status();
    }
}

//! Who pulls: sampan, podman, containerd's `ctr`, and skopeo with umoci; each into storage of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::fixture::spread;

/// One that pulls.
pub(crate) enum Peer {
    Sampan(PathBuf),
    Podman,
    Containerd,
    Skopeo,
}

impl Peer {
    /// Ours first; of the others those that are installed.
    pub(crate) fn all(binary: &Path, dir: &Path, no_peers: bool) -> Result<Vec<Self>> {
        let mut all = vec![Self::Sampan(binary.to_owned())];
        for (peer, programs) in [
            (Self::Podman, &["podman"][..]),
            (Self::Containerd, &["containerd", "ctr"]),
            (Self::Skopeo, &["skopeo", "umoci"]),
        ] {
            let there = programs.iter().all(|program| {
                let asked = Command::new(program).arg("--version").output();
                asked.is_ok_and(|output| output.status.success())
            });
            if there && !no_peers {
                all.push(peer);
            } else if !no_peers {
                eprintln!("{} is not installed (`cargo xtask setup --peers`)", programs.join(" or "));
            }
        }
        // podman wants to be told that a loopback registry is not a public one.
        fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        Ok(all)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sampan(_) => "sampan image pull",
            Self::Podman => "podman pull",
            Self::Containerd => "ctr images pull (containerd)",
            Self::Skopeo => "skopeo copy + umoci unpack",
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Sampan(_))
    }

    /// Peak memory of our command when it does nothing.
    pub(crate) fn idle(&self) -> Result<u64> {
        let Self::Sampan(binary) = self else { return Ok(0) };
        let dir = tempfile::tempdir()?;
        let mut command = sampan(binary, dir.path());
        let peak = watched(command.args(["image", "ls"]).args(directories(dir.path())))?;
        Ok(peak)
    }

    /// Pulls all at once into `work`; our peak memory.
    pub(crate) fn pull(&self, names: &[String], work: &Path) -> Result<Option<u64>> {
        spread(work);
        match self {
            Self::Sampan(binary) => {
                let mut command = sampan(binary, work);
                command.args(["--quiet", "image", "pull"]).args(names).args(directories(work));
                watched(&mut command).map(Some)
            }
            Self::Podman => {
                let pulls = names.iter().map(|name| {
                    let mut command = Command::new("podman");
                    command.arg("--root").arg(work.join("root")).arg("--runroot").arg(work.join("run"));
                    command.args(["--cgroup-manager", "cgroupfs", "pull", "-q", "--tls-verify=false", name]);
                    command
                });
                let done = together(pulls.collect());
                let _ = Command::new("umount").args(["-R", "-l"]).arg(work.join("root/overlay")).output();
                done.map(|()| None)
            }
            Self::Containerd => containerd(names, work).map(|()| None),
            Self::Skopeo => {
                let shell = names.iter().enumerate().map(|(i, name)| {
                    let mut command = Command::new("sh");
                    command.arg("-ec").arg(format!(
                        "skopeo copy -q --insecure-policy --src-tls-verify=false docker://{name} oci:{0}/l{i}:1\n\
                         umoci unpack --image {0}/l{i}:1 {0}/b{i}",
                        work.display()
                    ));
                    command
                });
                together(shell.collect()).map(|()| None)
            }
        }
    }
}

fn sampan(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("HOME", home);
    command
}

fn directories(dir: &Path) -> [String; 4] {
    let at = |name: &str| dir.join(name).display().to_string();
    ["--data-dir".to_owned(), at("data"), "--run-dir".to_owned(), at("run")]
}

/// Runs a command and looks how much memory it has had at most.
fn watched(command: &mut Command) -> Result<u64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default() * 1024);
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sampan: {}", String::from_utf8_lossy(&output.stderr));
    Ok(peak)
}

fn together(commands: Vec<Command>) -> Result<()> {
    let children: Vec<Child> = commands
        .into_iter()
        .map(|mut command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn())
        .collect::<Result<_, _>>()?;
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A daemon of its own, started and stopped outside of what matters little: both take milliseconds.
fn containerd(names: &[String], work: &Path) -> Result<()> {
    let socket = work.join("containerd.sock");
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n[ttrpc]\naddress = \"{1}.ttrpc\"\n",
        work.display(),
        socket.display()
    );
    fs::write(work.join("config.toml"), config)?;
    let log = fs::File::create(work.join("log"))?;
    let mut daemon = Command::new("containerd")
        .arg("--config")
        .arg(work.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("containerd")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        ensure!(Instant::now() < deadline, "containerd does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pulls = names.iter().map(|name| {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&socket).args(["images", "pull", "--plain-http", name]);
        command
    });
    let done = together(pulls.collect());
    daemon.kill()?;
    daemon.wait()?;
    done
}

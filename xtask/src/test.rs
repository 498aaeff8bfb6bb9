//! The tests, cheap ones first: what a contributor runs before a commit and CI runs after it.

use anyhow::{Result, ensure};

use crate::{
    command::{self, cargo},
    leaks, setup,
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Stop after formatting, lints and dependency rules
    #[arg(long)]
    lint_only: bool,
}

/// Runs everything; the first failure ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    cargo(["fmt", "--all", "--check"])?;
    cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    if command::exists("cargo-deny") {
        // Licences, bans and sources need no network; advisories do.
        cargo(["deny", "check", "bans", "licenses", "sources"])?;
    }
    if options.lint_only {
        return Ok(());
    }
    ensure!(is_root(), "the tests make namespaces, mounts and cgroups: run them as root");
    setup::run(&setup::Options::default())?;
    if command::exists("cargo-nextest") {
        cargo(["nextest", "run", "--workspace", "--no-fail-fast"])?;
    } else {
        cargo(["test", "--workspace", "--no-fail-fast"])?;
    }
    leaks::check()
}

/// `cargo xtask vm`: the test that needs a machine of its own.
pub(crate) fn vm() -> Result<()> {
    setup::run(&setup::Options::default())?;
    setup::guest()?;
    cargo(["test", "-p", "sampan", "--test", "e2e", "--", "--ignored", "--exact", VM_TEST, "--nocapture"])
}

const VM_TEST: &str = "cgroup_v2::rtc_25_rtc_26_cgroup_v2_and_apparmor_in_a_guest";

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

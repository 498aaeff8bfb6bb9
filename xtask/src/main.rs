//! What people run besides cargo: `cargo xtask demo | test | fuzz | vm | bench | setup`.
#![allow(clippy::print_stderr, reason = "these commands talk to a person at a terminal")]

mod bench;
mod command;
mod demo;
mod fuzz;
mod leaks;
mod setup;
mod test;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What people run besides cargo")]
enum Xtask {
    /// Build sampan and run examples/hello.yaml with it
    Demo,
    /// Format, lint, unit, in-process and end-to-end tests (as root); what CI runs
    Test(test::Options),
    /// Measure the promises of SPECIFICATION.md, against podman in the same run
    Bench(bench::Options),
    /// Boot a guest with cgroup v2 and AppArmor in software emulation and test a node in it
    Vm,
    /// Run the fuzzers of `fuzz/` (libFuzzer, AddressSanitizer) on what reads strangers' bytes
    Fuzz(fuzz::Options),
    /// Install what the tests need from the distribution's packages
    Setup(setup::Options),
    /// Fail when a test or a run left mounts, namespaces, cgroups, processes or rules behind
    Leaks,
}

fn main() -> Result<()> {
    match Xtask::parse() {
        Xtask::Demo => demo::run(),
        Xtask::Test(options) => test::run(&options),
        Xtask::Bench(options) => bench::run(&options),
        Xtask::Vm => test::vm(),
        Xtask::Fuzz(options) => fuzz::fuzz(&options),
        Xtask::Setup(options) => setup::run(&options),
        Xtask::Leaks => leaks::check(),
    }
}

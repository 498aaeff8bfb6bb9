//! The benchmark is a crate of its own, so that nobody compiles it by accident.

use anyhow::Result;

use crate::{
    command::{built, cargo},
    setup,
};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed on to the benchmark; `-- --help` lists what there is
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds the release binary and measures it.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(&setup::Options { peers: true })?;
    cargo(["build", "--release", "--package", "sampan"])?;
    let binary = built("release").join("sampan").display().to_string();
    let mut args = vec!["run", "--release", "--package", "sampan-bench", "--", "--binary", &binary];
    args.extend(options.rest.iter().map(String::as_str));
    cargo(args)
}

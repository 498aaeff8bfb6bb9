//! `cargo xtask fuzz`: libFuzzer on what reads strangers' bytes.
//!
//! The compiler has what fuzzing needs; it only hides it from those who did not ask for a nightly one. Asking is a
//! variable, so that neither a second toolchain nor another program has to be installed.

use std::ffi::OsStr;

use anyhow::{Result, ensure};

use crate::command::{run, run_with, target_dir, triple, workspace};

/// The files in `fuzz/fuzz_targets/`, and a document that each begins with.
const TARGETS: [(&str, &str); 7] = [
    ("reference", "reg.example.com:5000/team/app:1.0@sha256:"),
    ("manifest", r#"{"schemaVersion":2,"config":{"digest":"sha256:","size":2},"layers":[],"manifests":[]}"#),
    ("config", r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"diff_ids":[]}}"#),
    ("hosts", "server = \"https://a\"\n[host.\"https://b\"]\ncapabilities = [\"pull\"]\nca = \"x\"\n"),
    (
        "challenge",
        r#"Bearer realm="https://a/token",service="reg",scope="repository:a/b:pull", Basic realm=x"#,
    ),
    ("docker_config", r#"{"auths":{"*.example.com":{"auth":"YTpi"}},"credHelpers":{"a":"b"}}"#),
    ("layer", ""),
];
/// Counters in every branch, comparisons reported, and AddressSanitizer: as cargo-fuzz sets them.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Zsanitizer=address --cfg fuzzing";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which ones; all when none is named
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Builds the fuzzers and runs the chosen ones, one after the other; fails at the first broken promise.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    for name in &options.targets {
        let known = TARGETS.iter().any(|(target, _)| target == name);
        ensure!(known, "no fuzz target `{name}`; there are {}", TARGETS.map(|(target, _)| target).join(", "));
    }
    let build = target_dir().join("fuzz");
    // The versions that everything else is built with.
    std::fs::copy(workspace().join("Cargo.lock"), workspace().join("fuzz/Cargo.lock"))?;
    let environment = [
        ("RUSTC_BOOTSTRAP", OsStr::new("1")),
        ("RUSTFLAGS", OsStr::new(FLAGS)),
        ("CARGO_TARGET_DIR", build.as_ref()),
    ];
    let (triple, cargo) = (triple(), std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    let arguments =
        ["build", "--release", "--bins", "--manifest-path", "fuzz/Cargo.toml", "--target", &triple];
    run_with(&cargo, arguments, &environment)?;
    for (name, seed) in TARGETS {
        if !options.targets.is_empty() && !options.targets.iter().any(|target| target == name) {
            continue;
        }
        // What was found interesting is where the next run begins. What breaks a promise is put beside it.
        let corpus = build.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        std::fs::write(corpus.join("seed"), seed)?;
        let program = build.join(&triple).join("release").join(name);
        run(
            &program.to_string_lossy(),
            [
                corpus.display().to_string(),
                format!("-max_total_time={}", options.seconds),
                "-max_len=65536".to_owned(),
                "-timeout=20".to_owned(),
                format!("-artifact_prefix={}/{name}-", build.display()),
            ],
        )?;
    }
    Ok(())
}

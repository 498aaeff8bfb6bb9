#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]
//! The shim with real namespaces, over three OCI runtimes: the embedded one, runc and crun.
//!
//! This executable is all that the tests need: by its first argument it is the shim, the embedded runtime, or a
//! program inside a container; without one of these it runs the tests (a small harness that speaks enough of
//! libtest's command line for cargo and nextest). Needs root.

mod applet;
mod conformance;
mod embedded;
mod execs;
mod fixture;
mod leaks;
mod logs;
mod measure;
mod recovery;
mod sandboxes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use fixture::Runtime;

/// A test of the shim itself runs once, with the embedded runtime; one of what runtimes do, with each.
enum Test {
    Once(&'static str, fn(Runtime)),
    Each(&'static str, fn(Runtime)),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some("shim") => sampan_shim::main(args, sampan_oci_runtime::run),
        Some("oci") => sampan_oci_runtime::main(args),
        Some("applet") => applet::main(args),
        _ => run_tests(),
    }
}

/// A test's name, what it does, and with which runtime.
type Named = (String, fn(Runtime), Runtime);

fn tests() -> Vec<Named> {
    let modules = [
        conformance::TESTS,
        embedded::TESTS,
        execs::TESTS,
        logs::TESTS,
        recovery::TESTS,
        sandboxes::TESTS,
        leaks::TESTS,
        measure::TESTS,
    ];
    let mut tests = Vec::new();
    for test in modules.into_iter().flatten() {
        match test {
            Test::Once(name, run) => tests.push(((*name).to_owned(), *run, Runtime::Embedded)),
            Test::Each(name, run) => {
                for runtime in Runtime::present() {
                    tests.push((format!("{name}::{}", runtime.name()), *run, runtime));
                }
            }
        }
    }
    tests
}

fn run_tests() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let exact = has("--exact");
    let wanted = |name: &str| {
        let mut filters = filters.iter();
        filters.len() == 0
            || filters.any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    let ignored = has("--ignored");
    let tests: Vec<_> = tests().into_iter().filter(|(name, ..)| wanted(name)).collect();
    if has("--list") {
        for (name, ..) in tests.iter().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if ignored {
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, run, runtime) in &tests {
        let start = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| run(*runtime))).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", start.elapsed().as_millis());
        if !passed {
            failed.push(name);
        }
    }
    println!("\n{} passed, {} failed", tests.len() - failed.len(), failed.len());
    for name in &failed {
        println!("    {name}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

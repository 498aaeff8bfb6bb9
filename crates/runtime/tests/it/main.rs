//! The runtime with real namespaces, mounts and processes. Needs root; cleans up everything.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

mod conformance;
mod containers;
mod images;
mod node;
mod peer;
mod probe;
mod remains;
mod restarts;
mod roles;

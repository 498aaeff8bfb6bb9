//! Entry points for the fuzzers in `fuzz/`, and for the bounded mutations that run with the tests.
#![allow(missing_docs)]

use crate::images::credentials::fuzz_docker_config;

/// A docker configuration, in either form, and a repository on its first line: what it says is found without a
/// crash, and no error repeats what may be secret.
pub fn docker_config(bytes: &[u8]) {
    let (repository, config) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(0));
    fuzz_docker_config(&String::from_utf8_lossy(repository), config);
}

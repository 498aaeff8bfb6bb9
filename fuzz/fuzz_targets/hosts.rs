//! `hosts.toml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sampan_oci::fuzzing::hosts(bytes));

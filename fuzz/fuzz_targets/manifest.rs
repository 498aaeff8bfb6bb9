//! Manifests and indexes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sampan_oci::fuzzing::manifest(bytes));

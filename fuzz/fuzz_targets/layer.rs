//! Layers: tars, compressed or not. Run it as root, as the daemon does, in a machine that may be lost.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    sampan_runtime::fuzzing::layer(bytes, dir.path());
});

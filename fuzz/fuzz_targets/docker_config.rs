//! Docker configurations: `config.json`, `.dockercfg`, and what pull Secrets hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sampan_kubelet::fuzzing::docker_config(bytes));

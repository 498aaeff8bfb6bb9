//! Calls of the kernel, each behind a safe function.

pub(crate) mod bpf;
pub(crate) mod capabilities;
pub(crate) mod credentials;
pub(crate) mod execution;
pub(crate) mod mounts;
pub(crate) mod signals;
pub(crate) mod stdio;

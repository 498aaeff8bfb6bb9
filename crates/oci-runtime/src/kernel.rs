//! Calls of the kernel, each behind a safe function.

pub(crate) mod capabilities;
pub(crate) mod execution;
pub(crate) mod signals;
pub(crate) mod stdio;

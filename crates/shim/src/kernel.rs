//! Calls of the kernel, each behind a safe function.

pub(crate) mod pins;

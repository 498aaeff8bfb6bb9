//! Calls of the kernel, each behind a safe function. The shim is single-threaded throughout: that is
//! what makes `fork` in here harmless.

pub(crate) mod children;
pub(crate) mod embedded;
pub(crate) mod namespaces;
pub(crate) mod pause;
pub(crate) mod pins;
pub(crate) mod runtime_view;
pub(crate) mod signals;
pub(crate) mod terminal;

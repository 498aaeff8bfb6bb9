//! Pods on this node: where they come from, and one worker per pod that makes the runtime match its spec.

pub mod actions;
pub mod allocation;
mod orphans;
pub(crate) mod relist;
pub mod restart;
pub mod runtime_pod;
pub(crate) mod runtime_pods;
pub(crate) mod source;
pub(crate) mod worker;
pub(crate) mod workers;

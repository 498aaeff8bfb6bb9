//! A pod's status: computed from spec and runtime, written to the API when it changed.

pub mod conditions;
pub mod container_status;
pub mod patch;
pub mod phase;
pub mod pod_status;
pub(crate) mod termination_message;
pub(crate) mod writer;

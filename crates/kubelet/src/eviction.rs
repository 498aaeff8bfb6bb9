//! Node-pressure eviction: when memory, disk or process ids run short the node says so in its conditions and
//! ends pods, the ones that use most over what they asked for first (POD-56).

mod config;
mod signal;

pub use config::{EvictionConfig, Threshold};
pub(crate) use config::{default_hard, hard};
pub use signal::{Amount, Signal, parse_amount};

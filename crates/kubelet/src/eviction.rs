//! Node-pressure eviction: when memory, disk or process ids run short the node says so in its conditions and
//! ends pods, the ones that use most over what they asked for first (POD-56).

mod config;
mod limits;
mod observe;
mod rank;
mod run;
mod signal;
mod state;

pub use config::{EvictionConfig, Threshold};
pub(crate) use config::{default_hard, hard};
pub use observe::Observation;
pub(crate) use run::run;
pub use signal::{Amount, Pressure, Signal, parse_amount};

/// Where the numbers of the signals come from, when it is not the machine: tests.
pub type SignalSource =
    std::sync::Arc<dyn Fn() -> std::collections::BTreeMap<Signal, Observation> + Send + Sync>;

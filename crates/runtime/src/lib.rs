//! The CRI server: content store, snapshots, sandboxes, containers, streaming.
//!
//! [`Runtime::start`] takes over what an earlier process left: shims that still live are reconnected to, what
//! died is recorded, half-made things are removed. [`Runtime::serve`] answers on a unix socket. What runs a
//! container is a shim process per sandbox (`sampan-shim`) that outlives this one; this process may be killed
//! at any moment.

pub mod builtin;
mod cgroups;
mod config;
mod container;
mod content;
mod error;
mod events;
mod exits;
pub mod fuzzing;
pub mod handlers;
mod ids;
pub mod image_service;
pub mod images;
mod in_root;
mod network;
mod removal;
mod restart;
mod room;
mod runtime;
mod runtime_service;
mod sandbox;
mod shims;
mod signal;
pub mod snapshots;
mod spec;
mod state;
mod stats;
mod streaming;
mod time;
pub mod unpack;
mod user_namespace;

pub use config::{CgroupDriver, EMBEDDED, HandlerConfig, RuntimeConfig};
pub use error::Error;
pub use network::{NetworkRequest, NoNetwork, SandboxNetwork};
pub use runtime::Runtime;

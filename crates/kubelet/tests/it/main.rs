//! The whole kubelet against a fake runtime and a fake API, on tokio's paused clock: minutes of back-off pass
//! in milliseconds.
#![allow(clippy::unwrap_used)]

mod credentials;
mod deadlines;
mod eviction;
mod fake_api;
mod fake_runtime;
mod hooks;
mod hooks_network;
mod images;
mod lifecycle;
mod node;
mod probes;
mod probes_network;
mod resize;
mod restart;
mod restart_rules;
mod server;
mod static_pods;
mod termination;
mod volumes;
mod world;

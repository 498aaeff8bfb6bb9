//! End to end: the real binary, real `kubectl`, a real registry, real containers. Needs root.
//!
//! Every test starts a server of its own (own directories, ports, bridge, ranges and cgroup), so tests run side by
//! side and none sees another. When a test's server stops, the fixture looks that nothing of it is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

mod fixture;

mod agent;
mod bad_images;
mod bad_manifests;
mod bad_starts;
mod cgroup_v2;
mod chaos;
mod commands;
mod containerd;
mod datastore;
mod endings;
mod environment;
mod hooks;
mod hostile_layers;
mod image_collection;
mod images;
mod kill;
mod killed_pulls;
mod lifecycle;
mod network;
mod node_duties;
mod prepared_images;
mod private_images;
mod pull_progress;
mod registry_logins;
mod resize;
mod run;
mod runtime_classes;
mod services;
mod volumes;

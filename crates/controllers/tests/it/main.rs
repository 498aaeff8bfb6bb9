//! The controllers against a real API server in the same process.
#![allow(clippy::unwrap_used)]

mod cluster;
mod endpoints;
mod garbage;
mod namespaces;
mod nodes;
mod quotas;
mod runtime_classes;

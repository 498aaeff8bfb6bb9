//! The API server over a real store, spoken to as a client speaks to it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod admission;
mod bodies;
mod deletion;
mod harness;
mod https;
mod kubectl;
mod kubelet_proxy;
mod lists;
mod negotiation;
mod objects;
mod patches;
mod quotas;
mod rbac;
mod runtime_classes;
mod subresources;
mod watches;

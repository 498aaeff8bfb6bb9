//! The scheduler against an API in the same process.
#![allow(clippy::unwrap_used)]

mod api;
mod apiserver;
mod scheduling;

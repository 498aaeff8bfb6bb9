//! The registry client against a registry that can be told to misbehave.

mod client;
mod fake;
mod http2;
mod mirrors;
mod mutations;
mod transfers;

//! A DNS server: one zone whose records are in memory and change at any time, everything else forwarded and cached.
//!
//! The crate knows names and records. What a Service or a pod is, and which names they have, is known to the crate
//! `services`, which says it with [`Zone::set`].
//!
//! Packets come from anybody who can reach the address: each is bounded, a response is never answered, clients that the
//! server is not for get silence, and what is forwarded at the same time is limited ([`server`]).

mod answer;
mod error;
mod forward;
mod server;
mod zone;

pub use self::{
    error::Error,
    forward::Upstreams,
    server::{Server, ServerConfig},
    zone::{Data, Records, Zone},
};

/// Seconds for which an answer from the zone holds, also that there is none.
pub const TTL: u32 = 5;

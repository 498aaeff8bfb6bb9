//! The network with real namespaces, bridges and rules. Needs root; every test has a bridge and a range of its
//! own and leaves nothing behind. `nft` reads back what was written.
#![allow(missing_docs, clippy::unwrap_used)]

mod cni;
mod fixture;
mod rules;
mod sandboxes;
mod services;

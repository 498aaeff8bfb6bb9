//! Image references, digests, platforms, manifests, the registry client and the layer codecs.
//!
//! Floor 0 of the house: this crate knows registries and the bytes they serve, but neither a disk
//! layout nor Kubernetes. What it reads comes from strangers, so every reader here is bounded.

pub mod codec;
pub mod digest;
pub mod fuzzing;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod registry;

pub use digest::{Algorithm, Digest};
pub use manifest::{Descriptor, ImageConfig, Manifest};
pub use platform::Platform;
pub use reference::Reference;

//! The Container Runtime Interface, version 1: what a kubelet and a container runtime say to each other.
//!
//! [`v1`] holds the generated messages, client and server traits.

/// The generated messages, clients and server traits of `runtime.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

//! The Container Runtime Interface, version 1: what a kubelet and a container runtime say to each other.
//!
//! [`v1`] holds the generated messages, client and server traits of the protocol as of Kubernetes v1.36;
//! [`client`] and [`server`] connect them to unix sockets; [`streaming`] serves exec, attach and port-forward
//! over WebSocket and SPDY/3.1; [`progress`] is one small service of our own for what CRI cannot say.

pub mod client;
mod error;
pub mod mirrors;
mod redacted;
pub mod server;
pub mod streaming;

pub use error::Error;

/// The generated messages, clients and server traits of `runtime.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// `sampan.runtime.v1`: how far an image pull has come. Optional on both sides of a CRI connection.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod progress {
    tonic::include_proto!("sampan.runtime.v1");
}

/// `sampan.archives.v1`: images from and to archives, and clean-up. Optional on both sides of a CRI connection.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod archives {
    tonic::include_proto!("sampan.archives.v1");
}

/// The largest request that a runtime accepts, in bytes, as upstream's kubelet and containerd.
pub const MAX_REQUEST_SIZE: usize = 16 * 1024 * 1024;

/// The largest answer that is made or accepted, in bytes: lists of a full node's containers and the
/// 16 MiB that ExecSync may return for each of its two streams.
pub const MAX_MESSAGE_SIZE: usize = 64 * 1024 * 1024;

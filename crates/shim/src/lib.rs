//! The process that keeps a pod's containers: their parent, their stdio, their logs, their exit codes.
//!
//! One shim runs per pod sandbox and outlives the daemon that started it. It is single-threaded and
//! has no async runtime: an epoll loop over a signalfd, a unix listener, pipes and terminals. The
//! daemon's side is [`client`], what both speak is [`protocol`].
//!
//! The binary enters by [`main`] when its first argument is `shim`, before any thread exists.

pub mod client;
pub mod protocol;

mod kernel;
mod limits;
mod server;

pub use limits::raise_open_files;
pub use server::main;

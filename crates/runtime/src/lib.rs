//! The CRI server: content store, snapshots, sandboxes, containers, streaming.

//! Names for sandboxes and containers.

/// A new sandbox id: 32 hex digits, because it is part of a socket's path, which may have 107 bytes.
pub(crate) fn sandbox() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A new container id: 64 hex digits, which is what tools look for in cgroup paths.
pub(crate) fn container() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// A short id for an exec.
pub(crate) fn exec() -> String {
    format!("{:016x}", rand::random::<u64>())
}

//! How many files this process may have open. The usual soft limit of 1024 is for programs that use `select`;
//! daemon and shims hold a few descriptors for every process and client, and take what the hard limit allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one; gives what it was, for processes that are started from here.
pub fn raise_open_files() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    // Nothing depends on it that could not go on without.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    before
}

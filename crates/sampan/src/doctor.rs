//! Whether this machine can run pods: one check per thing that the node needs from the host, each with the
//! way to get it. A check looks; it changes nothing.

mod checks;

use std::path::Path;

use crate::config::Directories;

/// One thing that was looked at.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// What was found, in a few words.
    pub(crate) found: String,
    pub(crate) verdict: Verdict,
}

/// What the finding means.
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Pods run, something is less than it could be.
    Warning { fix: String },
    /// Pods do not run.
    Missing { fix: String },
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Good }
    }

    fn warning(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Warning { fix: fix.into() } }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Missing { fix: fix.into() } }
    }
}

/// All checks, in the order in which a person would fix things.
pub(crate) fn checks(directories: &Directories) -> Vec<Check> {
    vec![
        checks::root(),
        checks::kernel(),
        checks::namespaces(),
        checks::cgroups(),
        checks::overlay(),
        checks::bridge(),
        checks::nftables(),
        checks::forwarding(),
        checks::resolver(Path::new("/etc/resolv.conf")),
        checks::seccomp(),
        checks::resources(),
        checks::engines(),
        checks::inotify(),
        checks::disk(&directories.data()),
    ]
}

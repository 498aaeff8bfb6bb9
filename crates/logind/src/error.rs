//! What can be wrong with logind.

use std::path::PathBuf;
use std::time::Duration;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no system bus, or it does not let us in.
    #[error("no system bus")]
    Bus(#[source] zbus::Error),
    /// A call that systemd did not carry out.
    #[error("{method} of systemd")]
    Call {
        /// Its name.
        method: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// The file that makes logind wait longer cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another configuration, or nobody who reads ours.
    #[error(
        "logind delays a shutdown by {} s at most, less than the {} s of shutdownGracePeriod: set InhibitDelayMaxSec in its logind.conf",
        is.as_secs(), wanted.as_secs()
    )]
    Limit {
        /// What the kubelet needs.
        wanted: Duration,
        /// What logind allows.
        is: Duration,
    },
}

impl Error {
    pub(crate) fn call<E: Into<zbus::Error>>(method: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Call { method, source: source.into() }
    }
}

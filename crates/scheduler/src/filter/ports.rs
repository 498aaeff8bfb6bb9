//! Ports of the host.

use super::Rejection;
use crate::cluster::Taken;
use crate::pod::Pod;

/// No port that the pod wants may be taken.
pub(super) fn check(pod: &Pod, all: &Taken) -> Result<(), Rejection> {
    if pod.ports.iter().any(|port| all.ports.iter().any(|taken| taken.conflicts(port))) {
        return Err(Rejection::preemptible("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

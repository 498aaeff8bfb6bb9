//! Ports of the host.

use super::Rejection;
use crate::cluster::NodeState;
use crate::pod::Pod;

/// No port that the pod wants may be taken.
pub(super) fn check(pod: &Pod, state: &NodeState) -> Result<(), Rejection> {
    if pod.ports.iter().any(|port| state.ports.iter().any(|taken| taken.conflicts(port))) {
        let reason = "node(s) didn't have free ports for the requested pod ports".to_owned();
        return Err(Rejection { reasons: vec![reason], preemptible: true });
    }
    Ok(())
}

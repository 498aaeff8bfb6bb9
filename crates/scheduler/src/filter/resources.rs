//! Resources: what is left of the allocatable amounts (RTC-22).

use sampan_api::Quantity;

use super::Rejection;
use crate::cluster::Taken;
use crate::node::Node;
use crate::pod::Pod;

/// Everything that is asked for has to be left; all that lacks is named.
pub(super) fn check(pod: &Pod, node: &Node, taken: &Taken) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    let mut preemptible = true;
    let allocatable = |name: &str| node.allocatable.get(name).copied().unwrap_or_default();
    if taken.pods + 1 > allocatable("pods").value() {
        reasons.push("Too many pods".to_owned());
    }
    // Upstream's order: cpu, memory and ephemeral-storage first, then the extended ones by name.
    let first = ["cpu", "memory", "ephemeral-storage"];
    let rest = pod.requests.keys().map(String::as_str).filter(|name| !first.contains(name));
    for name in first.into_iter().chain(rest) {
        let wanted = pod.requests.get(name).copied().unwrap_or_default();
        let requested = taken.requested.get(name).copied().unwrap_or_default();
        if wanted > Quantity::ZERO && wanted > allocatable(name) - requested {
            reasons.push(format!("Insufficient {name}"));
            preemptible &= wanted <= allocatable(name);
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, preemptible }) }
}

//! The words in which upstream tells why a pod fits nowhere; people and tools read them.

use std::collections::BTreeMap;

use crate::filter::Rejection;

/// What `FailedScheduling` says when each node rejected the pod.
pub(crate) fn unschedulable(rejections: &[Rejection]) -> String {
    if rejections.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let total = rejections.len();
    let reasons = rejections.iter().flat_map(|rejection| rejection.reasons.iter().map(String::as_str));
    let preemption = rejections.iter().map(|rejection| match rejection.preemptible {
        true => "No preemption victims found for incoming pod",
        false => "Preemption is not helpful for scheduling",
    });
    let available = format!("0/{total} nodes are available: ");
    format!("{available}{}. preemption: {available}{}.", histogram(reasons), histogram(preemption))
}

/// `1 Insufficient cpu, 2 Too many pods`: counted and sorted as text.
fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut texts: Vec<_> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(reasons: &[&str], preemptible: bool) -> Rejection {
        Rejection { reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(), preemptible }
    }

    #[test]
    fn rtc_22_text_is_upstreams() {
        assert_eq!(
            unschedulable(&[rejection(&["Insufficient cpu"], true)]),
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
             victims found for incoming pod."
        );
        assert_eq!(
            unschedulable(&[
                rejection(&["Insufficient memory", "Insufficient cpu"], true),
                rejection(&["Insufficient cpu"], true),
                rejection(&["node(s) had untolerated taint(s)"], false),
            ]),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient \
             cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No \
             preemption victims found for incoming pod."
        );
        assert_eq!(unschedulable(&[]), "no nodes available to schedule pods");
    }
}

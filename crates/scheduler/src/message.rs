//! The words in which upstream tells why a pod fits nowhere; people and tools read them.

use std::collections::BTreeMap;

use crate::decide::Refusal;
use crate::filter::Rejection;

/// What `FailedScheduling` says of a pod that fits nowhere.
pub(crate) fn unschedulable(refusal: &Refusal) -> String {
    let (nodes, no_victims) = (&refusal.rejections, no_victims(&refusal.rejections));
    let Some(reasons) = reasons(nodes) else { return "no nodes available to schedule pods".to_owned() };
    match (refusal.ineligible, &refusal.sacrifice) {
        (Some(why), _) => format!("{reasons} preemption: {why}"),
        (None, Some(_)) => reasons,
        (None, None) => format!("{reasons} preemption: {no_victims}"),
    }
}

/// `0/1 nodes are available: 1 Insufficient cpu.`; `None` when there are no nodes.
fn reasons(rejections: &[Rejection]) -> Option<String> {
    let total = rejections.len();
    let reasons = rejections.iter().flat_map(|rejection| rejection.reasons.iter().map(String::as_str));
    let text = format!("0/{total} nodes are available: {}.", histogram(reasons));
    (total > 0).then_some(text)
}

/// Why making room did not help, node by node.
fn no_victims(rejections: &[Rejection]) -> String {
    let total = rejections.len();
    let preemption = rejections.iter().map(|rejection| match rejection.preemptible {
        true => "No preemption victims found for incoming pod",
        false => "Preemption is not helpful for scheduling",
    });
    format!("0/{total} nodes are available: {}.", histogram(preemption))
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

    fn unschedulable(rejections: &[Rejection]) -> String {
        let rejections = rejections.to_vec();
        super::unschedulable(&Refusal { rejections, ineligible: None, sacrifice: None })
    }

    #[test]
    fn rtc_22_text_tells_of_preemption() {
        let rejections = vec![rejection(&["Insufficient cpu"], true)];
        let never = Refusal {
            rejections: rejections.clone(),
            ineligible: Some("not eligible due to preemptionPolicy=Never."),
            sacrifice: None,
        };
        assert_eq!(
            super::unschedulable(&never),
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
        );
        let sacrifice = crate::preempt::Sacrifice { node: "a".into(), victims: Vec::new() };
        let evicting = Refusal { rejections, ineligible: None, sacrifice: Some(sacrifice) };
        assert_eq!(super::unschedulable(&evicting), "0/1 nodes are available: 1 Insufficient cpu.");
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

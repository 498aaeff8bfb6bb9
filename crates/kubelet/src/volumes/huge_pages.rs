//! `emptyDir` of medium `HugePages` or `HugePages-<size>`: a file system of huge pages, as many as the pod's containers may
//! have of that size (ENV-46).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use crate::{pod_ref, quantities};

/// Before a page size, in names of resources.
const RESOURCE: &str = "hugepages-";
const MEDIUM: &str = "HugePages";

/// Pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// Bytes of a page.
    pub(super) size: i64,
    /// Bytes of all pages together.
    pub(super) limit: i64,
}

/// Whether an emptyDir's medium means huge pages.
pub(super) fn is_meant(medium: &str) -> bool {
    medium == MEDIUM || medium.strip_prefix(MEDIUM).is_some_and(|rest| rest.starts_with('-'))
}

/// The pages that a volume may have: those of the size that its medium names, or of the only one that the pod asks for,
/// as many as its containers together and its own `sizeLimit` allow.
///
/// # Errors
/// No container asks for such pages, or it is not clear which are meant; in upstream's words.
pub(super) fn of(pod: &Pod, source: &EmptyDirVolumeSource) -> Result<Pages, String> {
    let medium = source.medium.as_deref().unwrap_or_default();
    let asked = asked(pod);
    let found = match medium.strip_prefix(MEDIUM).and_then(|rest| rest.strip_prefix('-')) {
        Some(size) => {
            let size = quantities::value(size)
                .filter(|size| *size > 0)
                .ok_or_else(|| format!("medium {medium}: {size:?} is not the size of a page"))?;
            asked.get_key_value(&size)
        }
        None if asked.len() > 1 => {
            return Err(format!(
                "medium {medium} can't be used if container requests multiple huge page sizes"
            ));
        }
        None => asked.first_key_value(),
    };
    let (size, limit) = found.ok_or_else(|| {
        format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    })?;
    let own = source.size_limit.as_ref().and_then(|limit| quantities::value(&limit.0));
    let limit = own.filter(|own| *own > 0).map_or(*limit, |own| own.min(*limit));
    Ok(Pages { size: *size, limit })
}

/// By page size, what all containers may have. Requests and limits of huge pages are always equal.
fn asked(pod: &Pod) -> BTreeMap<i64, i64> {
    let mut asked = BTreeMap::new();
    for container in pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)) {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let size = name.strip_prefix(RESOURCE).and_then(quantities::value);
            if let (Some(size), Some(limit)) = (size, quantities::value(&limit.0)) {
                *asked.entry(size).or_default() += limit;
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn pages(source: Value, limits: &[Value]) -> Result<Pages, String> {
        let containers: Vec<Value> =
            limits.iter().map(|limits| json!({"name": "c", "resources": {"limits": limits}})).collect();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
        of(&serde_json::from_value(pod).unwrap(), &serde_json::from_value(source).unwrap())
    }

    #[test]
    fn env_46_huge_pages_are_those_that_the_pod_asks_for() {
        let (small, large) = (json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-1Gi": "1Gi"}));
        let any = json!({"medium": "HugePages"});
        let found = |size: i64, limit: i64| Ok(Pages { size: size << 20, limit: limit << 20 });
        assert_eq!(pages(any.clone(), &[small.clone(), small.clone()]), found(2, 8));
        assert_eq!(
            pages(json!({"medium": "HugePages", "sizeLimit": "2Mi"}), std::slice::from_ref(&small)),
            found(2, 2)
        );
        let both = [small.clone(), large];
        assert_eq!(pages(json!({"medium": "HugePages-1Gi"}), &both), found(1024, 1024));
        let refused = |source: Value, limits: &[Value], text: &str| {
            let refusal = pages(source, limits).unwrap_err();
            assert!(refusal.contains(text), "{refusal}");
        };
        refused(any.clone(), &both, "multiple huge page sizes");
        refused(any, &[json!({"memory": "1Gi"})], "there is no resource request for huge pages");
        refused(
            json!({"medium": "HugePages-1Gi"}),
            std::slice::from_ref(&small),
            "there is no resource request",
        );
        refused(json!({"medium": "HugePages-x"}), &[small], "is not the size of a page");
        assert!(is_meant("HugePages") && is_meant("HugePages-2Mi") && !is_meant("HugePagesX"));
    }
}

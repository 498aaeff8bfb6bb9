//! User namespaces of pods with `hostUsers: false` (KEP-127): which ids of the host are whose.
//!
//! Each such pod gets [`IDS`] ids that no other pod of the node has, written to `<data>/pods/<uid>/userns` before they
//! are used and read from there by the next daemon. They are taken from what `/etc/subuid` and `/etc/subgid` give to
//! the user `kubelet`, or without such lines from the ids above the host's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sampan_cri::v1::{self, NamespaceMode};
use serde_json::{Value, json};

/// Ids of a pod.
const IDS: u32 = 65_536;
/// Whose lines in `/etc/subuid` and `/etc/subgid` say what pods may have.
const USER: &str = "kubelet";
/// The file of a pod.
const FILE: &str = "userns";

/// The ids of all pods of the node.
pub(crate) struct UserNamespaces {
    /// The first id and how many pods' worth there are, or why there is nothing to give.
    range: Result<(u32, u32), String>,
    /// Place in the range to pod.
    taken: Mutex<BTreeMap<u32, String>>,
}

impl UserNamespaces {
    /// Reads the host's rules from `etc` and what pods below `pods` have already.
    pub(crate) fn read(etc: &Path, pods: &Path, max_pods: u32) -> Self {
        let text = |name: &str| std::fs::read_to_string(etc.join(name)).unwrap_or_default();
        let range = range(&text("subuid"), &text("subgid"), max_pods);
        if let Err(reason) = &range {
            tracing::warn!(reason, "pods with hostUsers: false cannot run");
        }
        let mut taken = BTreeMap::new();
        for entry in std::fs::read_dir(pods).into_iter().flatten().flatten() {
            let first = recorded(&entry.path());
            if let (Some(first), Ok((start, _))) = (first, &range)
                && let Some(offset) = first.checked_sub(*start)
            {
                taken.insert(offset / IDS, entry.file_name().to_string_lossy().into_owned());
            }
        }
        Self { range, taken: Mutex::new(taken) }
    }

    /// The user namespace of a pod, the same whenever it is asked for.
    ///
    /// # Errors
    /// No range, no room in it, or a directory that cannot be written; for people.
    pub(crate) fn of(&self, uid: &str, pod_dir: &Path) -> Result<v1::UserNamespace, String> {
        if let Some(first) = recorded(pod_dir) {
            return Ok(user_namespace(first));
        }
        let (start, places) = self.range.clone()?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (0..places).find(|place| !taken.contains_key(place)).ok_or_else(|| {
            format!("could not find an empty slot to allocate a user namespace: all {places} are in use")
        })?;
        let first = start + place * IDS;
        write(pod_dir, first).map_err(|error| {
            format!("write the user namespace of pod {uid:?}: {}: {error}", pod_dir.display())
        })?;
        taken.insert(place, uid.to_owned());
        Ok(user_namespace(first))
    }

    /// Gives a pod's ids back, once nothing of it is left.
    pub(crate) fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, pod| pod != uid);
    }
}

/// Which ids pods may have.
fn range(subuid: &str, subgid: &str, max_pods: u32) -> Result<(u32, u32), String> {
    match (lines(subuid)[..].split_first(), lines(subgid)[..].split_first()) {
        (None, None) => Ok((IDS, max_pods.min(u32::MAX / IDS - 1))),
        (Some((users, [])), Some((groups, []))) if users == groups => {
            let (first, count) = *users;
            if first < IDS || !first.is_multiple_of(IDS) || count < IDS || first.checked_add(count).is_none()
            {
                return Err(format!(
                    "/etc/subuid gives {USER} the ids {first}:{count}: the first must be a multiple of {IDS} and not \
                     0, and there must be {IDS} for each pod"
                ));
            }
            Ok((first, (count / IDS).min(max_pods)))
        }
        _ => Err(format!("/etc/subuid and /etc/subgid must each give {USER} one range, the same")),
    }
}

/// The ranges that a file gives to [`USER`].
fn lines(text: &str) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let (first, count) = line.strip_prefix(USER)?.strip_prefix(':')?.split_once(':')?;
            Some((first.trim().parse().ok()?, count.trim().parse().ok()?))
        })
        .collect()
}

/// The first id that a pod's directory records.
fn recorded(pod_dir: &Path) -> Option<u32> {
    let text = std::fs::read(pod_dir.join(FILE)).ok()?;
    let recorded: Value = serde_json::from_slice(&text).ok()?;
    u32::try_from(recorded["uidMappings"][0]["hostId"].as_u64()?).ok()
}

/// In the kubelet's own format, so that another kubelet on these files goes on with them.
fn write(pod_dir: &Path, first: u32) -> std::io::Result<()> {
    let ids = json!([{"hostId": first, "containerId": 0, "length": IDS}]);
    let text = json!({"uidMappings": ids, "gidMappings": ids}).to_string();
    std::fs::create_dir_all(pod_dir)?;
    let fresh = pod_dir.join(format!("{FILE}.new"));
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, pod_dir.join(FILE))
}

fn user_namespace(first: u32) -> v1::UserNamespace {
    let ids = vec![v1::IdMapping { host_id: first, container_id: 0, length: IDS }];
    v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn first(namespace: Result<v1::UserNamespace, String>) -> u32 {
        let namespace = namespace.unwrap();
        assert_eq!(namespace.uids, namespace.gids);
        assert_eq!(namespace.uids[0].length, IDS);
        namespace.uids[0].host_id
    }

    #[test]
    fn ids_never_overlap_and_outlive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, pods) = (dir.path().join("etc"), dir.path().join("pods"));
        let at = |pod: &str| pods.join(pod);
        let namespaces = UserNamespaces::read(&etc, &pods, 2);
        assert_eq!(first(namespaces.of("a", &at("a"))), 65_536);
        assert_eq!(first(namespaces.of("b", &at("b"))), 131_072);
        assert_eq!(first(namespaces.of("a", &at("a"))), 65_536);
        let error = namespaces.of("c", &at("c")).unwrap_err();
        assert!(error.contains("empty slot"), "{error}");

        let next = UserNamespaces::read(&etc, &pods, 2);
        assert_eq!(first(next.of("b", &at("b"))), 131_072);
        assert!(next.of("c", &at("c")).is_err());
        std::fs::remove_dir_all(at("a")).unwrap();
        next.release("a");
        assert_eq!(first(next.of("c", &at("c"))), 65_536);
    }

    #[test]
    fn the_host_says_which_ids_pods_may_have() {
        assert_eq!(range("", "root:1:5\n", 110), Ok((65_536, 110)));
        let line = "x:1:2\nkubelet:131072:196608\n";
        assert_eq!(range(line, line, 110), Ok((131_072, 3)));
        assert_eq!(range(line, line, 1), Ok((131_072, 1)));
        for (users, groups) in [
            (line, ""),
            (line, "kubelet:65536:196608"),
            ("kubelet:0:65536", "kubelet:0:65536"),
            ("kubelet:65537:65536", "kubelet:65537:65536"),
            ("kubelet:65536:9", "kubelet:65536:9"),
            ("kubelet:4294901760:65537", "kubelet:4294901760:65537"),
        ] {
            assert!(range(users, groups, 110).is_err(), "{users}");
        }
    }
}

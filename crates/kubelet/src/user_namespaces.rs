//! User namespaces of pods with `hostUsers: false` (KEP-127): which ids of the host are whose.
//!
//! Each such pod gets as many ids as `userNamespaces.idsPerPod` says, which no other pod of the node has, written to
//! `<data>/pods/<uid>/userns` before they are used and read from there by the next daemon. They are taken from what
//! `/etc/subuid` and `/etc/subgid` give to the user `kubelet`, or without such lines from the ids above the host's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sampan_cri::v1::{self, NamespaceMode};
use serde_json::{Value, json};

use crate::checkpoint;

/// Ids of a pod unless the configuration says otherwise, and what their number must be a multiple of; the host's own are
/// the first so many.
pub(crate) const UNIT: u32 = 65_536;
/// Whose lines in `/etc/subuid` and `/etc/subgid` say what pods may have.
const USER: &str = "kubelet";
/// The file of a pod.
const FILE: &str = "userns";

/// The ids of all pods of the node.
pub(crate) struct UserNamespaces {
    /// The first id and how many pods' worth there are, or why there is nothing to give.
    range: Result<(u32, u32), String>,
    /// Ids of a pod that has none yet.
    ids: u32,
    /// By pod: its first id and how many it has, which may be another number than today's.
    taken: Mutex<BTreeMap<String, (u32, u32)>>,
}

impl UserNamespaces {
    /// Reads the host's rules from `etc` and what pods below `pods` have already.
    pub(crate) fn read(etc: &Path, pods: &Path, max_pods: u32, ids: u32) -> Self {
        let text = |name: &str| std::fs::read_to_string(etc.join(name)).unwrap_or_default();
        let range = range(&text("subuid"), &text("subgid"), max_pods, ids);
        if let Err(reason) = &range {
            tracing::warn!(reason, "pods with hostUsers: false cannot run");
        }
        let entries = std::fs::read_dir(pods).into_iter().flatten().flatten();
        let named = |entry: std::fs::DirEntry| {
            Some((entry.file_name().to_string_lossy().into_owned(), recorded(&entry.path())?))
        };
        let taken = entries.filter_map(named).collect();
        Self { range, ids, taken: Mutex::new(taken) }
    }

    /// The user namespace of a pod, the same whenever it is asked for.
    ///
    /// # Errors
    /// No range, no room in it, or a directory that cannot be written; for people.
    pub(crate) fn of(&self, uid: &str, pod_dir: &Path) -> Result<v1::UserNamespace, String> {
        if let Some((first, length)) = recorded(pod_dir) {
            return Ok(user_namespace(first, length));
        }
        let (start, places) = self.range.clone()?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |first: &u32| {
            taken.values().all(|(other, length)| first + self.ids <= *other || other + length <= *first)
        };
        let first = (0..places).map(|place| start + place * self.ids).find(is_free).ok_or_else(|| {
            format!("could not find an empty slot to allocate a user namespace: all {places} are in use")
        })?;
        write(pod_dir, first, self.ids)
            .map_err(|error| format!("write the user namespace of pod {uid:?}: {error}"))?;
        taken.insert(uid.to_owned(), (first, self.ids));
        Ok(user_namespace(first, self.ids))
    }

    /// Gives a pod's ids back, once nothing of it is left.
    pub(crate) fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Which ids pods may have.
fn range(subuid: &str, subgid: &str, max_pods: u32, ids: u32) -> Result<(u32, u32), String> {
    match (lines(subuid)[..].split_first(), lines(subgid)[..].split_first()) {
        (None, None) => Ok((UNIT, max_pods.min((u32::MAX - UNIT) / ids))),
        (Some((users, [])), Some((groups, []))) if users == groups => {
            let (first, count) = *users;
            if first < UNIT
                || !first.is_multiple_of(UNIT)
                || count < ids
                || first.checked_add(count).is_none()
            {
                return Err(format!(
                    "/etc/subuid gives {USER} the ids {first}:{count}: the first must be a multiple of {UNIT} and not \
                     0, and there must be {ids} for each pod"
                ));
            }
            Ok((first, (count / ids).min(max_pods)))
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

/// The first id that a pod's directory records, and how many there are.
fn recorded(pod_dir: &Path) -> Option<(u32, u32)> {
    let recorded: Value = checkpoint::read(&pod_dir.join(FILE)).unwrap_or_else(|error| {
        tracing::warn!(error, "the user namespace of a pod is not known");
        None
    })?;
    let number = |field: &str| u32::try_from(recorded["uidMappings"][0][field].as_u64()?).ok();
    let (first, length) = (number("hostId")?, number("length")?);
    (length > 0 && first.checked_add(length).is_some()).then_some((first, length))
}

/// In the kubelet's own format, so that another kubelet on these files goes on with them.
fn write(pod_dir: &Path, first: u32, length: u32) -> Result<(), String> {
    std::fs::create_dir_all(pod_dir).map_err(|error| format!("mkdir {}: {error}", pod_dir.display()))?;
    let ids = json!([{"hostId": first, "containerId": 0, "length": length}]);
    checkpoint::write(&pod_dir.join(FILE), &json!({"uidMappings": ids, "gidMappings": ids}))
}

fn user_namespace(first: u32, length: u32) -> v1::UserNamespace {
    let ids = vec![v1::IdMapping { host_id: first, container_id: 0, length }];
    v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn first(namespace: Result<v1::UserNamespace, String>) -> u32 {
        let namespace = namespace.unwrap();
        assert_eq!(namespace.uids, namespace.gids);
        assert_eq!(namespace.uids[0].length, UNIT);
        namespace.uids[0].host_id
    }

    #[test]
    fn ids_never_overlap_and_outlive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, pods) = (dir.path().join("etc"), dir.path().join("pods"));
        let at = |pod: &str| pods.join(pod);
        let namespaces = UserNamespaces::read(&etc, &pods, 2, UNIT);
        assert_eq!(first(namespaces.of("a", &at("a"))), 65_536);
        assert_eq!(first(namespaces.of("b", &at("b"))), 131_072);
        assert_eq!(first(namespaces.of("a", &at("a"))), 65_536);
        let error = namespaces.of("c", &at("c")).unwrap_err();
        assert!(error.contains("empty slot"), "{error}");

        let next = UserNamespaces::read(&etc, &pods, 2, UNIT);
        assert_eq!(first(next.of("b", &at("b"))), 131_072);
        assert!(next.of("c", &at("c")).is_err());
        std::fs::remove_dir_all(at("a")).unwrap();
        next.release("a");
        assert_eq!(first(next.of("c", &at("c"))), 65_536);

        // Other numbers of ids for new pods: who is there keeps what it has, and nobody gets a part of it.
        let larger = UserNamespaces::read(&etc, &pods, 4, 2 * UNIT);
        assert_eq!(first(larger.of("b", &at("b"))), 131_072);
        let new = larger.of("d", &at("d")).unwrap();
        assert_eq!((new.uids[0].host_id, new.uids[0].length), (3 * UNIT, 2 * UNIT));
        let smaller = UserNamespaces::read(&etc, &pods, 5, UNIT);
        assert_eq!(first(smaller.of("e", &at("e"))), 5 * UNIT);
    }

    #[test]
    fn the_host_says_which_ids_pods_may_have() {
        assert_eq!(range("", "root:1:5\n", 110, UNIT), Ok((65_536, 110)));
        let line = "x:1:2\nkubelet:131072:196608\n";
        assert_eq!(range(line, line, 110, UNIT), Ok((131_072, 3)));
        assert_eq!(range(line, line, 1, UNIT), Ok((131_072, 1)));
        assert_eq!(range(line, line, 110, 2 * UNIT), Ok((131_072, 1)));
        assert_eq!(range("", "", u32::MAX, 2 * UNIT), Ok((65_536, 32_767)));
        for (users, groups) in [
            (line, ""),
            (line, "kubelet:65536:196608"),
            ("kubelet:0:65536", "kubelet:0:65536"),
            ("kubelet:65537:65536", "kubelet:65537:65536"),
            ("kubelet:65536:9", "kubelet:65536:9"),
            ("kubelet:4294901760:65537", "kubelet:4294901760:65537"),
        ] {
            assert!(range(users, groups, 110, UNIT).is_err(), "{users}");
        }
    }
}

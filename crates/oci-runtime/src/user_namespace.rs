//! Containers in their pod's user namespace (`hostUsers: false`): what libcontainer does not do for them.
//!
//! libcontainer joins the namespace first and makes everything from inside. There it is a stranger to the host:
//! it cannot pass through directories that are closed to others, and it does not map the ids of mounts. So before it
//! starts, a stage ([`crate::stage`]) is set that all can reach, in a mount namespace that goes with this process, and
//! the ids of those mounts that want it are mapped. `exec` is the other way round: libcontainer does not join a container's user namespace at all, so
//! the command's process joins it as its last step ([`Member`]).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::kernel::{credentials, mounts};
use crate::{Error, Result};

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    host: u32,
    size: u32,
}

/// The user namespace of a container.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    namespace: Arc<File>,
    uids: Vec<Range>,
    gids: Vec<Range>,
}

/// A user of a user namespace.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    namespace: Arc<File>,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// The ids on the host of `uid` and `gid`.
    pub(crate) on_host: (u32, u32),
}

impl Member {
    /// Becomes that user.
    pub(crate) fn join(&self) -> std::io::Result<()> {
        credentials::join(&*self.namespace, self.uid, self.gid, &self.groups)
    }
}

impl UserNamespace {
    /// The one that a bundle's configuration wants to be joined. Without a path libcontainer makes a new one by
    /// itself.
    pub(crate) fn of(config: &Value) -> Result<Option<Self>> {
        let namespaces = config.pointer("/linux/namespaces").and_then(Value::as_array);
        let user = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "user");
        let Some(path) = user.and_then(|user| user["path"].as_str()).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = Path::new(path);
        let namespace = File::open(path).map_err(Error::file("open user namespace", path))?;
        let ranges = |name: &str| ranges(&config["linux"][name]);
        Ok(Some(Self {
            namespace: Arc::new(namespace),
            uids: ranges("uidMappings")?,
            gids: ranges("gidMappings")?,
        }))
    }

    /// The host's ids of its root.
    pub(crate) fn root(&self) -> (u32, u32) {
        let root = |ranges: &[Range]| on_host(0, ranges).unwrap_or(0);
        (root(&self.uids), root(&self.gids))
    }

    /// The user that a process is to be.
    pub(crate) fn member(&self, process: &Value) -> Result<Member> {
        let id = |name: &str| -> Result<u32> {
            let id = process.pointer(&format!("/user/{name}")).and_then(Value::as_u64).unwrap_or(0);
            u32::try_from(id).map_err(|_| Error::text(format!("process.user.{name}: too large")))
        };
        let on_host = |id: u32, ranges: &[Range], name: &str| {
            on_host(id, ranges)
                .ok_or_else(|| Error::text(format!("{name} {id} is not mapped in the user namespace")))
        };
        let (uid, gid) = (id("uid")?, id("gid")?);
        let groups = process.pointer("/user/additionalGids").and_then(Value::as_array);
        let groups: Vec<u32> =
            groups.into_iter().flatten().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        for group in &groups {
            on_host(*group, &self.gids, "supplementary group")?;
        }
        Ok(Member {
            namespace: Arc::clone(&self.namespace),
            uid,
            gid,
            groups,
            on_host: (on_host(uid, &self.uids, "user")?, on_host(gid, &self.gids, "group")?),
        })
    }

    /// Maps the ids of the copy of a mount's source, if it wants that.
    pub(crate) fn map_ids(&self, mount: &Value, source: &Path, tree: &OwnedFd) -> Result<()> {
        if !self.is_mapped(mount)? {
            return Ok(());
        }
        mounts::map_ids(tree, &*self.namespace).map_err(|error| {
            Error::text(format!(
                "map the ids of {} for {}: {error} (its file system may not support id-mapped mounts)",
                source.display(),
                mount["destination"].as_str().unwrap_or_default(),
            ))
        })
    }

    /// Whether a mount wants its ids mapped: as the container's are, or not at all.
    fn is_mapped(&self, mount: &Value) -> Result<bool> {
        let (uids, gids) = (ranges(&mount["uidMappings"])?, ranges(&mount["gidMappings"])?);
        if uids.is_empty() && gids.is_empty() {
            return Ok(false);
        }
        if uids == self.uids && gids == self.gids {
            return Ok(true);
        }
        let destination = mount["destination"].as_str().unwrap_or_default();
        Err(Error::text(format!("mount {destination}: ids can only be mapped as the container's are")))
    }
}

fn ranges(list: &Value) -> Result<Vec<Range>> {
    let number = |range: &Value, name: &str| {
        let number = range[name].as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| Error::text(format!("id mapping without {name}: {range}")))
    };
    let list = list.as_array().into_iter().flatten();
    list.map(|range| {
        Ok(Range {
            inside: number(range, "containerID")?,
            host: number(range, "hostID")?,
            size: number(range, "size")?,
        })
    })
    .collect()
}

fn on_host(id: u32, ranges: &[Range]) -> Option<u32> {
    let range = ranges.iter().find(|range| id.checked_sub(range.inside).is_some_and(|n| n < range.size))?;
    range.host.checked_add(id - range.inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let list = json!([{"containerID": 0, "hostID": 131_072, "size": 65_536}]);
        let ranges = ranges(&list).unwrap();
        assert_eq!(on_host(0, &ranges), Some(131_072));
        assert_eq!(on_host(65_535, &ranges), Some(196_607));
        assert_eq!(on_host(65_536, &ranges), None);
        assert!(super::ranges(&json!([{"containerID": 0}])).is_err());
    }

    #[test]
    fn only_a_namespace_with_a_path_is_joined() {
        assert!(UserNamespace::of(&json!({"linux": {"namespaces": [{"type": "user"}]}})).unwrap().is_none());
        let own = json!({"linux": {
            "namespaces": [{"type": "user", "path": "/proc/self/ns/user"}],
            "uidMappings": [{"containerID": 0, "hostID": 5000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 6000, "size": 10}],
        }});
        let namespace = UserNamespace::of(&own).unwrap().unwrap();
        let member = namespace.member(&json!({"user": {"uid": 3, "gid": 4, "additionalGids": [5]}})).unwrap();
        assert_eq!(member.on_host, (5003, 6004));
        assert!(namespace.member(&json!({"user": {"uid": 10, "gid": 0}})).is_err());
        assert!(namespace.is_mapped(&json!({"uidMappings": own["linux"]["gidMappings"]})).is_err());
    }
}

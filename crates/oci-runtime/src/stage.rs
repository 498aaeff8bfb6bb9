//! What a container needs of the host, copied to one place before libcontainer starts: the root file system, the
//! pins of the namespaces, and the sources of all bind mounts.
//!
//! A container in a user namespace needs that because there libcontainer is a stranger to the host ([`Stage::gather`]
//! is told of the namespace). All others have it on cgroup v1, for the sake of speed: libcgroups and libcontainer open
//! the table of mounts sixteen times for each container, and a node with 200 pods has 1,400 mounts. So they run in a
//! mount namespace that has little more than the stage ([`Retreat`]).

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kernel::mounts;
use crate::user_namespace::UserNamespace;
use crate::{Error, Result};

/// Directories that every machine has and everybody may enter; the first that does not hide what is needed is used.
const PLACES: [&str; 4] = ["/dev/shm", "/mnt", "/srv", "/media"];

/// The file systems of the kernel; a [`Retreat`] has them with all that is mounted below them.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Copies of mounts that are attached nowhere yet.
#[derive(Debug)]
pub(crate) struct Stage {
    place: &'static Path,
    copies: Vec<Copy>,
}

#[derive(Debug)]
struct Copy {
    target: PathBuf,
    is_dir: bool,
    tree: OwnedFd,
}

impl Stage {
    /// Copies the root, the namespaces and the sources of all bind mounts; `config` then names the copies. `needed` are
    /// paths that must stay reachable. In a user namespace, those mounts that want it have their ids mapped.
    pub(crate) fn gather(config: &mut Value, needed: &[&Path], user: Option<&UserNamespace>) -> Result<Self> {
        let usable = |place: &&Path| place.is_dir() && !needed.iter().any(|path| path.starts_with(place));
        let place = PLACES.map(Path::new).into_iter().find(usable);
        let place = place
            .ok_or_else(|| Error::text(format!("a container needs one of the directories {PLACES:?}")))?;
        let root = PathBuf::from(config.pointer("/root/path").and_then(Value::as_str).unwrap_or_default());
        let tree = mounts::copy(&root, true).map_err(Error::file("copy the mount of", &root))?;
        let mut copies = vec![Copy { target: place.join("rootfs"), is_dir: true, tree }];
        let namespaces = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        for namespace in namespaces.into_iter().flatten().filter(|namespace| namespace["type"] != "user") {
            let Some(path) = namespace["path"].as_str().filter(|path| !path.is_empty()) else { continue };
            let path = Path::new(path);
            let tree = mounts::copy(path, false).map_err(Error::file("copy the mount of", path))?;
            let target = place.join(namespace["type"].as_str().unwrap_or_default());
            namespace["path"] = json!(target);
            copies.push(Copy { target, is_dir: false, tree });
        }
        let list = config["mounts"].as_array_mut();
        for (index, mount) in list.into_iter().flatten().enumerate() {
            let Some(recursive) = bound(mount) else { continue };
            let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
            // There all the same, or (a container's cgroup) not there yet; but what the stage hides is not.
            let real = source.canonicalize().unwrap_or_else(|_| source.clone());
            let hidden = real.starts_with(place) || place.starts_with(&real);
            if user.is_none() && !hidden && KERNEL.iter().any(|kernel| source.starts_with(kernel)) {
                continue;
            }
            let tree = mounts::copy(&source, recursive).map_err(Error::file("copy the mount of", &source))?;
            if let Some(user) = user {
                user.map_ids(mount, &source, &tree)?;
            }
            let target = place.join(index.to_string());
            mount["source"] = json!(target);
            copies.push(Copy { target, is_dir: source.is_dir(), tree });
        }
        config["root"]["path"] = json!(place.join("rootfs"));
        Ok(Self { place, copies })
    }

    /// Attaches the copies, in the mount namespace of this process.
    pub(crate) fn set(&self) -> Result<()> {
        mounts::empty(self.place).map_err(Error::file("mount", self.place))?;
        for Copy { target, is_dir, tree } in &self.copies {
            let made = if *is_dir { fs::create_dir(target) } else { File::create(target).map(drop) };
            made.and_then(|()| mounts::attach(tree, target)).map_err(Error::file("attach", target))?;
        }
        Ok(())
    }
}

/// Whether it is a bind mount, and whether of the whole tree.
fn bound(mount: &Value) -> Option<bool> {
    let options = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let options: Vec<&str> = options.collect();
    if options.contains(&"rbind") {
        return Some(true);
    }
    (mount["type"] == "bind" || options.contains(&"bind")).then_some(false)
}

/// A mount namespace with the root, the kernel's own file systems, and what the paths that are needed lie on.
/// The process goes home when this is dropped.
#[derive(Debug)]
pub(crate) struct Retreat {
    home: OwnedFd,
}

impl Retreat {
    /// Goes there. What is mounted elsewhere is out of reach from then on, so the stage is gathered before.
    pub(crate) fn enter(needed: &[&Path]) -> std::io::Result<Self> {
        let kernel = KERNEL.map(Path::new);
        let mut trees = Vec::new();
        for path in kernel.into_iter().filter(|path| path.is_dir()) {
            trees.push((path.to_owned(), mounts::copy(path, true)?));
        }
        let elsewhere = needed.iter().filter(|path| !kernel.iter().any(|kernel| path.starts_with(kernel)));
        for point in mount_points(elsewhere.copied())? {
            let tree = mounts::copy(&point, false)?;
            trees.push((point, tree));
        }
        let root = mounts::copy(Path::new("/"), false)?;
        let retreat = Self { home: mounts::current()? };
        mounts::unshare_private()?;
        mounts::pivot(&root, &trees)?;
        Ok(retreat)
    }
}

impl Drop for Retreat {
    fn drop(&mut self) {
        // The process ends soon; what it could not do from where it is says its own error.
        let _ = mounts::join(&self.home);
    }
}

/// Where something is mounted on the way to these paths, the outermost first, without the root.
fn mount_points<'a>(paths: impl Iterator<Item = &'a Path>) -> std::io::Result<Vec<PathBuf>> {
    let mut points: Vec<PathBuf> = Vec::new();
    for path in paths {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        let ids = ancestors.iter().map(|path| mounts::id(path)).collect::<std::io::Result<Vec<u64>>>()?;
        for (pair, path) in ids.windows(2).zip(&ancestors[1..]) {
            if pair[0] != pair[1] && !points.iter().any(|known| known == path) {
                points.push((*path).to_owned());
            }
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bind_mounts_are_known_by_type_and_option() {
        assert_eq!(bound(&json!({"type": "bind", "options": ["rbind", "ro"]})), Some(true));
        assert_eq!(bound(&json!({"type": "none", "options": ["bind"]})), Some(false));
        assert_eq!(bound(&json!({"type": "tmpfs"})), None);
    }

    #[test]
    fn mount_points_are_found_on_the_way() {
        let found = mount_points([Path::new("/proc/self"), Path::new("/proc")].into_iter()).unwrap();
        assert_eq!(found, [Path::new("/proc")]);
        assert!(mount_points([Path::new("/no such file")].into_iter()).is_err());
    }
}

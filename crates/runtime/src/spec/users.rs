//! Who the container's first process is: numbers from the request, names from the image's passwd and group
//! files. The files are the image's, so they are untrusted: opened inside the root file system and bounded.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use sampan_cri::v1;

use super::SpecError;
use crate::in_root;

/// A passwd file of a real distribution has 2 KiB.
const MAX_FILE: u64 = 1 << 20;
/// The kernel takes 65,536.
const MAX_GROUPS: usize = 65_536;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) additional_gids: Vec<u32>,
    /// Where HOME points.
    pub(crate) home: String,
}

#[derive(Debug)]
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// ENV-03: the request's user, else the image's `user[:group]`, else root.
pub(super) fn resolve(
    rootfs: &Path,
    security: &v1::LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, SpecError> {
    if security.run_as_group.is_some()
        && security.run_as_user.is_none()
        && security.run_as_username.is_empty()
    {
        return Err(SpecError::invalid("user group is specified without user"));
    }
    let (wanted, group) = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => (uid.value.to_string(), None),
        (None, "") => match image_user.split_once(':') {
            Some((user, group)) => {
                (user.to_owned(), Some(group.to_owned()).filter(|group| !group.is_empty()))
            }
            None => (image_user.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    let (passwd, groups) = (read_passwd(rootfs)?, read_groups(rootfs)?);
    let wanted = if wanted.is_empty() { "0".to_owned() } else { wanted };
    let number = wanted.parse::<u32>().ok();
    // A name that is all digits is a number first.
    let entry = passwd
        .iter()
        .find(|entry| number == Some(entry.uid))
        .or_else(|| passwd.iter().find(|entry| entry.name == wanted));
    let (uid, mut gid) = match (entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => {
            return Err(SpecError::invalid(format!(
                "unable to find user {wanted}: no matching entries in passwd file"
            )));
        }
    };
    if let Some(group) = group {
        gid = match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                groups.iter().find(|have| have.name == group).map(|have| have.gid).ok_or_else(|| {
                    SpecError::invalid(format!(
                        "unable to find group {group}: no matching entries in group file"
                    ))
                })?
            }
        };
    }
    if let Some(group) = &security.run_as_group {
        gid = u32::try_from(group.value)
            .map_err(|_| SpecError::invalid(format!("invalid group {}", group.value)))?;
    }

    let mut additional = vec![gid];
    let mut add = |gid: u32| {
        if !additional.contains(&gid) && additional.len() < MAX_GROUPS {
            additional.push(gid);
        }
    };
    if security.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Merge
        && let Some(entry) = entry
    {
        groups.iter().filter(|group| group.members.contains(&entry.name)).for_each(|group| add(group.gid));
    }
    for gid in &security.supplemental_groups {
        add(u32::try_from(*gid)
            .map_err(|_| SpecError::invalid(format!("invalid supplemental group {gid}")))?);
    }
    let home = entry.map(|entry| entry.home.clone()).filter(|home| !home.is_empty());
    Ok(User { uid, gid, additional_gids: additional, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn read_passwd(rootfs: &Path) -> Result<Vec<Entry>, SpecError> {
    Ok(lines(rootfs, "etc/passwd")?
        .filter_map(|fields| {
            Some(Entry {
                name: fields.first()?.clone(),
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
                home: fields.get(5).cloned().unwrap_or_default(),
            })
        })
        .collect())
}

fn read_groups(rootfs: &Path) -> Result<Vec<Group>, SpecError> {
    Ok(lines(rootfs, "etc/group")?
        .filter_map(|fields| {
            let members = fields.get(3).map(String::as_str).unwrap_or_default();
            Some(Group {
                name: fields.first()?.clone(),
                gid: fields.get(2)?.parse().ok()?,
                members: members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            })
        })
        .collect())
}

/// The colon-separated lines of a file inside the root file system; an image without it has no lines.
fn lines(rootfs: &Path, file: &str) -> Result<impl Iterator<Item = Vec<String>>, SpecError> {
    let text = match read_inside(rootfs, file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            String::new()
        }
        Err(source) => return Err(SpecError::Io { operation: "read", path: rootfs.join(file), source }),
    };
    let lines: Vec<Vec<String>> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| line.trim().split(':').map(str::to_owned).collect())
        .collect();
    Ok(lines.into_iter())
}

fn read_inside(rootfs: &Path, file: &str) -> io::Result<String> {
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // NONBLOCK: a FIFO in the image must not hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = in_root::open(&root, file, flags)?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\nbroken\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nweb:x:33:\nextra:x:50:web,other\nlast:x:51:web\n",
        )
        .unwrap();
        dir
    }

    fn as_user(uid: i64) -> v1::LinuxContainerSecurityContext {
        v1::LinuxContainerSecurityContext {
            run_as_user: Some(v1::Int64Value { value: uid }),
            supplemental_groups: vec![1000],
            ..Default::default()
        }
    }

    #[test]
    fn env_03_names_and_numbers_come_from_the_image() {
        let dir = rootfs();
        let none = v1::LinuxContainerSecurityContext::default();
        let user = resolve(dir.path(), &none, "web").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (33, 33, "/var/www"));
        assert_eq!(user.additional_gids, [33, 50, 51]);
        assert_eq!(resolve(dir.path(), &none, "web:extra").unwrap().gid, 50);
        assert_eq!(resolve(dir.path(), &none, "7:9").unwrap().gid, 9);
        assert_eq!(resolve(dir.path(), &none, "").unwrap().home, "/root");
        assert!(resolve(dir.path(), &none, "nobody-here").is_err());
    }

    #[test]
    fn the_request_wins_and_strict_ignores_the_image() {
        let dir = rootfs();
        let mut security = as_user(33);
        assert_eq!(resolve(dir.path(), &security, "root").unwrap().additional_gids, [33, 50, 51, 1000]);
        security.supplemental_groups_policy = v1::SupplementalGroupsPolicy::Strict.into();
        assert_eq!(resolve(dir.path(), &security, "root").unwrap().additional_gids, [33, 1000]);
        let user = resolve(dir.path(), &as_user(4711), "").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (4711, 0, "/"));
        let alone = v1::LinuxContainerSecurityContext {
            run_as_group: Some(v1::Int64Value { value: 5 }),
            ..Default::default()
        };
        assert!(resolve(dir.path(), &alone, "").is_err());
    }

    #[test]
    fn a_link_out_of_the_image_stays_inside() {
        let dir = rootfs();
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/shadow", dir.path().join("etc/passwd")).unwrap();
        let none = v1::LinuxContainerSecurityContext::default();
        assert!(resolve(dir.path(), &none, "root").is_err());
    }
}

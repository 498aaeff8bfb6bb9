//! A container's working directory, made when it is missing (ENV-03), as runc does and images rely on.
//!
//! Twice: in the root before anything is mounted there or made read-only ([`prepare`]), and in the container's own
//! view for a directory on a volume ([`enter`]).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat2};
use rustix::io::Errno;

/// Mode of a directory that was made.
const MODE: u32 = 0o755;
/// How often the kernel may give up: it does when anything on the machine is renamed or mounted while it follows a `..`.
const TRIES: u32 = 256;

/// Makes `directory` inside `root`, never outside of it; what is made belongs to `owner` on the host. Names that lead
/// to no directory are left: [`enter`] will say so.
pub(crate) fn prepare(root: &Path, directory: &Path, owner: (u32, u32)) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let open = |path: &str| -> rustix::io::Result<OwnedFd> {
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 1;
        loop {
            match openat2(&root, path, flags, Mode::empty(), within) {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    };
    let mut so_far = String::from(".");
    for name in names(directory) {
        let Some(name) = name.to_str() else { return Ok(()) };
        let parent = open(&so_far)?;
        so_far = format!("{so_far}/{name}");
        match open(&so_far) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(_) => return Ok(()),
        }
        match mkdirat(&parent, name, Mode::from_raw_mode(MODE)) {
            Ok(()) => own(parent.as_fd(), name, owner)?,
            // A link that leads nowhere.
            Err(Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The names on the way, `..` taken as written (it does not ask where a link leads), as runc takes it.
fn names(directory: &Path) -> Vec<&OsStr> {
    let mut names = Vec::new();
    for component in directory.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names
}

fn own(parent: impl AsFd, name: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Goes there, inside the container; what is missing is made and root's. The text of an error is runc's.
pub(crate) fn enter(directory: &Path) -> Result<(), String> {
    let failed =
        |error: io::Error| format!("chdir to cwd ({directory:?}) set in config.json failed: {error}");
    let directory = &Path::new("/").join(names(directory).iter().collect::<PathBuf>());
    match std::env::set_current_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(directory).map_err(failed)?;
            std::env::set_current_dir(directory).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    // Nothing that leads out of the container's root.
    match std::env::current_dir() {
        Ok(_) => Ok(()),
        Err(_) => Err("current working directory is outside of container mount namespace root".to_owned()),
    }
}

fn make(directory: &Path) -> io::Result<()> {
    let mut so_far = Path::new("/").to_owned();
    for name in names(directory) {
        so_far.push(name);
        if !so_far.is_dir() {
            fs::DirBuilder::new().mode(MODE).create(&so_far)?;
            // The process is the container's user already.
            chown(&so_far, Some(0), Some(0))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn env_03_a_missing_directory_is_made_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for made in [&root, &outside] {
            fs::create_dir(made).unwrap();
        }
        prepare(&root, Path::new("/a/../b/c"), (0, 0)).unwrap();
        assert_eq!(fs::metadata(root.join("b/c")).unwrap().mode() & 0o7777, 0o755);
        // Links are followed inside the root only, and never made into directories.
        symlink("/../../outside", root.join("up")).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("/b", root.join("inside")).unwrap();
        for path in ["/up/x", "/absolute/y", "/inside/z"] {
            prepare(&root, Path::new(path), (0, 0)).unwrap();
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join("b/z").is_dir());
        // A file in the way is somebody else's to tell.
        fs::write(root.join("file"), "").unwrap();
        prepare(&root, Path::new("/file/x"), (0, 0)).unwrap();
    }
}

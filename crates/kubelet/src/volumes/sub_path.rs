//! `subPath`: a file or directory inside a volume, found without ever leaving the volume, whatever links the
//! pod put there (ENV-52).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What happens when there is nothing at a `subPath`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A directory is made there.
    Made,
    /// The container gets an empty directory that is not in the volume: what is in the volume is the API's, and the
    /// name may come later.
    Aside,
}

/// Binds `sub_path` of the volume at `volume` to `target` and returns `target`.
pub(super) fn bind(
    volume: &Path,
    sub_path: &str,
    target: &Path,
    missing: Missing,
) -> Result<PathBuf, String> {
    let aside = target.with_extension("missing");
    let found = match resolve(volume, sub_path, missing) {
        Err(Errno::NOENT) if missing == Missing::Aside => {
            std::fs::create_dir_all(&aside).map_err(|error| format!("{}: {error}", aside.display()))?;
            return Ok(aside);
        }
        found => found.map_err(|error| format!("failed to prepare subPath {sub_path:?}: {error}"))?,
    };
    let wanted = rustix::fs::fstat(&found).map_err(|error| error.to_string())?;
    if let Ok(bound) = rustix::fs::stat(target) {
        if (bound.st_dev, bound.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(target.to_owned());
        }
        // From an earlier start of the container; the volume has another file there now.
        let left = super::kernel_mounts::unmount_below(target)
            .map_err(|error| format!("the mounts of {}: {error}", target.display()))?;
        if !left.is_empty() {
            return Err(format!("still mounted: {}", left.join(", ")));
        }
    }
    let is_dir = rustix::fs::FileType::from_raw_mode(wanted.st_mode) == rustix::fs::FileType::Directory;
    let failed = |error: std::io::Error| format!("{}: {error}", target.display());
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    if is_dir {
        std::fs::create_dir_all(target).map_err(failed)?;
    } else {
        // Never emptied: it would be the user's own file if something were mounted there after all.
        std::fs::File::options().create(true).write(true).truncate(false).open(target).map_err(failed)?;
    }
    // By descriptor, so that what was checked is what is mounted.
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()));
    super::kernel_mounts::bind(&source, target)?;
    Ok(target.to_owned())
}

/// Opens `sub_path` inside `volume`, making missing directories where that is wanted.
fn resolve(volume: &Path, sub_path: &str, missing: Missing) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(volume, directory, Mode::empty())?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open =
        |path: &str| rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within);
    match open(sub_path) {
        Err(Errno::NOENT) if missing == Missing::Made => {}
        other => return other,
    }
    // Missing directories have the volume's own mode, so that whoever may write the volume may write them.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o777);
    let mut so_far = String::new();
    for part in sub_path.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(Errno::INVAL);
        }
        let parent = if so_far.is_empty() { open(".")? } else { open(&so_far)? };
        let made = match rustix::fs::mkdirat(&parent, part, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}/{part}") };
        if made {
            // Past the umask; a path descriptor cannot change modes. A link that took its place is not followed.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(&parent, part, flags, Mode::empty())?;
            rustix::fs::fchmod(&directory, mode)?;
        }
    }
    open(sub_path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_52_links_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
        std::os::unix::fs::symlink("../../..", volume.join("up")).unwrap();
        assert!(
            resolve(&volume, "link/passwd", Missing::Made).is_err() || !volume.join("link/passwd").exists()
        );
        resolve(&volume, "up/made", Missing::Made).unwrap();
        assert!(volume.join("made").is_dir());
        resolve(&volume, "a/b", Missing::Made).unwrap();
        assert!(volume.join("a/b").is_dir());
        let mode = |path: &str| {
            std::os::unix::fs::PermissionsExt::mode(
                &std::fs::metadata(volume.join(path)).unwrap().permissions(),
            )
        };
        std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        resolve(&volume, "c/d", Missing::Made).unwrap();
        assert_eq!((mode("c") & 0o7777, mode("c/d") & 0o7777), (0o777, 0o777));
        assert!(resolve(&volume, "new/../../x", Missing::Made).is_err());
    }

    /// A directory and a link to the host change places all the time; whichever is met, the host is not.
    #[test]
    fn env_52_a_link_that_appears_while_it_is_mounted_leads_nowhere() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let dir = tempfile::tempdir().unwrap();
        let (host, volume) = (dir.path().join("host"), dir.path().join("v"));
        std::fs::create_dir_all(volume.join("x/in")).unwrap();
        std::fs::create_dir_all(host.join("in")).unwrap();
        std::fs::write(host.join("in/secret"), "s").unwrap();
        std::os::unix::fs::symlink(&host, volume.join("y")).unwrap();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (over, inside) = (std::sync::Arc::clone(&done), volume.clone());
        let swapper = std::thread::spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let (x, y) = (inside.join("x"), inside.join("y"));
                renameat_with(CWD, x, CWD, y, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut bound, mut refused) = (0, 0);
        for n in 0..500 {
            let target = dir.path().join(format!("targets/{n}"));
            // `new` has to be made, `in` is there on both sides.
            for sub_path in ["x/in", "x/in/new"] {
                match bind(&volume, sub_path, &target, Missing::Made) {
                    Ok(_) => bound += 1,
                    Err(_) => refused += 1,
                }
                assert!(!target.join("secret").exists(), "{sub_path}");
                super::super::kernel_mounts::unmount_below(&target).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().unwrap();
        assert_eq!(bound + refused, 1_000);
        assert_eq!(std::fs::read_dir(host.join("in")).unwrap().count(), 1, "something was made on the host");
    }

    #[test]
    fn env_52_a_sub_path_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("file"), "content").unwrap();
        let target = dir.path().join("targets/0");
        let mounts = || {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            mounts.lines().filter(|line| line.contains(target.to_str().unwrap())).count()
        };
        bind(&volume, "file", &target, Missing::Made).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "content");
        // As every restart of the container does.
        bind(&volume, "file", &target, Missing::Made).unwrap();
        assert_eq!(mounts(), 1);
        std::fs::rename(volume.join("file"), volume.join("old")).unwrap();
        std::fs::write(volume.join("file"), "new content").unwrap();
        bind(&volume, "file", &target, Missing::Made).unwrap();
        assert_eq!((mounts(), std::fs::read_to_string(&target).unwrap().as_str()), (1, "new content"));
        std::fs::rename(volume.join("old"), volume.join("file")).unwrap();
        bind(&volume, "file", &target, Missing::Made).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "content");
        assert!(super::super::kernel_mounts::unmount_below(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn env_52_nothing_is_made_where_the_api_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, target) = (dir.path().join("v"), dir.path().join("targets/0"));
        std::fs::create_dir(&volume).unwrap();
        let bound = bind(&volume, "key", &target, Missing::Aside).unwrap();
        assert_eq!(std::fs::read_dir(&bound).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(&volume).unwrap().count(), 0);
        // At the next start of the container the key is there.
        std::fs::write(volume.join("key"), "content").unwrap();
        let bound = bind(&volume, "key", &target, Missing::Aside).unwrap();
        assert_eq!(std::fs::read_to_string(&bound).unwrap(), "content");
        assert!(super::super::kernel_mounts::unmount_below(dir.path()).unwrap().is_empty());
    }
}

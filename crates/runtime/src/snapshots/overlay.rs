//! Overlay mounts of any number of layers.
//!
//! The old mount call passes all directories in one page of text, which ends near 38 layers of our path
//! length; the new one takes them one by one (`lowerdir+`, Linux 6.7) up to the kernel's 500. Older kernels get
//! the old call, with directories named by descriptor when their paths are too long.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, mount as mount_call, move_mount,
    unmount as unmount_call,
};

use self::attached::Attached;
use crate::user_namespace::MappedIds;

pub(crate) mod attached;

/// A string parameter of the new mount call must be shorter than this.
const PARAMETER: usize = 256;
/// The old call's options must fit a page.
const PAGE: usize = 4096;

/// The new call was refused and the old one was not: the next mount need not ask again.
static OLD_KERNEL: AtomicBool = AtomicBool::new(false);

/// Mounts `lower` (topmost first), writable through `(upper, work)` or read-only without; with `ids` the files of
/// `lower` have these. An overlay as a whole cannot be mapped, and what is written has the right ids already.
pub(super) fn mount(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    target: &Path,
    ids: Option<&MappedIds>,
) -> io::Result<()> {
    let Some(ids) = ids else { return mount_plain(lower, writable, target) };
    mount_new(lower, writable, target, Some(ids)).or_else(|_| {
        let attached = Attached::new(lower, target, ids);
        attached
            .and_then(|attached| mount_plain(&attached.views, writable, target))
            .map_err(|e| io::Error::new(e.kind(), format!("with mapped ids: {e}")))
    })
}

fn mount_plain(lower: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    if OLD_KERNEL.load(Ordering::Relaxed) {
        return mount_old(lower, writable, target);
    }
    match mount_new(lower, writable, target, None) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
            mount_old(lower, writable, target)?;
            OLD_KERNEL.store(true, Ordering::Relaxed);
            Ok(())
        }
        other => other,
    }
}

/// Unmounts, lazily; not mounted is fine.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    match unmount_call(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn mount_new(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    target: &Path,
    ids: Option<&MappedIds>,
) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Descriptors that stand for long paths live until the file system is made.
    let mut held = Vec::new();
    let mut views = Vec::new();
    let mut set = |key: &str, path: &Path| -> io::Result<()> {
        let value = short(path, &mut held)?;
        fsconfig_set_string(context.as_fd(), key, value.as_path()).map_err(|e| explain(&context, e))
    };
    for (i, dir) in lower.iter().enumerate() {
        if let Some(ids) = ids {
            let view = ids.view(dir)?;
            fsconfig_set_fd(context.as_fd(), "lowerdir+", &view).map_err(|e| explain(&context, e))?;
            // Closing it would end the mount before the overlay has its own of it.
            views.push(view);
            continue;
        }
        if let Err(error) = set("lowerdir+", dir) {
            // A kernel that does not know the parameter says so at the first one.
            let unknown = i == 0 && error.raw_os_error() == Some(libc::EINVAL) && dir.is_dir();
            return Err(if unknown { Errno::OPNOTSUPP.into() } else { error });
        }
    }
    if let Some((upper, work)) = writable {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    fsconfig_set_string(context.as_fd(), "source", "overlay").map_err(|e| explain(&context, e))?;
    fsconfig_create(context.as_fd()).map_err(|e| match explain(&context, e) {
        // Before Linux 6.5 parameters are gathered unread, and an unknown one is refused only here. Should anything else
        // be wrong, the old call says so.
        error if error.raw_os_error() == Some(libc::EINVAL) => Errno::OPNOTSUPP.into(),
        error => error,
    })?;
    let attributes =
        if writable.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(mounted.as_fd(), "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

fn mount_old(lower: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    let mut held = Vec::new();
    let mut options = old_options(lower, writable, |path| Ok(path.to_path_buf()))?;
    if options.len() >= PAGE {
        options = old_options(lower, writable, |path| by_descriptor(path, &mut held))?;
    }
    if options.len() >= PAGE {
        return Err(io::Error::other(format!(
            "{} layers are more than this kernel can mount (Linux 6.7 or newer takes 500)",
            lower.len()
        )));
    }
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = if writable.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
    mount_call("overlay", target, "overlay", flags, options.as_c_str())?;
    Ok(())
}

fn old_options(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    mut name: impl FnMut(&Path) -> io::Result<PathBuf>,
) -> io::Result<String> {
    let mut options = String::from("lowerdir=");
    for (i, dir) in lower.iter().enumerate() {
        let dir = name(dir)?;
        let text = dir.to_str().ok_or_else(|| io::Error::other("path is not UTF-8"))?;
        let _ = write!(options, "{}{}", if i == 0 { "" } else { ":" }, escape(text));
    }
    if let Some((upper, work)) = writable {
        for (key, dir) in [("upperdir", upper), ("workdir", work)] {
            let text = dir.to_str().ok_or_else(|| io::Error::other("path is not UTF-8"))?;
            let _ = write!(options, ",{key}={}", escape(text));
        }
    }
    Ok(options)
}

/// `:` separates directories and `,` options.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

fn short(path: &Path, held: &mut Vec<OwnedFd>) -> io::Result<PathBuf> {
    if path.as_os_str().len() < PARAMETER { Ok(path.to_path_buf()) } else { by_descriptor(path, held) }
}

fn by_descriptor(path: &Path, held: &mut Vec<OwnedFd>) -> io::Result<PathBuf> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    held.push(fd);
    Ok(name)
}

/// The kernel writes its reason into the context; without it every mistake is EINVAL.
fn explain(context: &OwnedFd, errno: Errno) -> io::Error {
    let mut reasons = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(n) = rustix::io::read(context, &mut buffer) {
        if n == 0 || reasons.len() > 8 {
            break;
        }
        reasons.push(String::from_utf8_lossy(&buffer[..n]).trim().to_owned());
    }
    let error = io::Error::from(errno);
    if !reasons.is_empty() {
        tracing::debug!(%error, ?reasons, "overlay mount refused");
    }
    error
}

#[cfg(test)]
mod tests;

//! Mount trees that are not attached anywhere yet, and a mount namespace to gather them in.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::pivot_root;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Leaves the mounts of the caller alone from here on; what happens to those of the host is still seen.
pub(crate) fn unshare() -> io::Result<()> {
    unshare_as(MountPropagationFlags::DOWNSTREAM)
}

/// The same, and nothing of the host's is seen any more.
pub(crate) fn unshare_private() -> io::Result<()> {
    unshare_as(MountPropagationFlags::PRIVATE)
}

fn unshare_as(propagation: MountPropagationFlags) -> io::Result<()> {
    // SAFETY: unshare takes a plain integer; the process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount_change("/", propagation | MountPropagationFlags::REC)?;
    Ok(())
}

/// The mount namespace of this process.
pub(crate) fn current() -> io::Result<OwnedFd> {
    Ok(open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Joins a mount namespace, at its root.
pub(crate) fn join(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

/// The kernel's number of the mount that a path is on.
pub(crate) fn id(path: &Path) -> io::Result<u64> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Makes a copy the root of this process's mount namespace, with others attached where they belong, and lets go of all
/// that was mounted before. The namespace must be this process's own.
pub(crate) fn pivot(root: &OwnedFd, trees: &[(PathBuf, OwnedFd)]) -> io::Result<()> {
    // Any directory will do: what is below it is out of sight only until the turn.
    let turn = Path::new("/proc");
    attach(root, turn)?;
    for (target, tree) in trees {
        attach(tree, &turn.join(target.strip_prefix("/").unwrap_or(target)))?;
    }
    std::env::set_current_dir(turn)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// A copy of what is mounted at `source`, with or without what is mounted below it.
pub(crate) fn copy(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(CWD, source, flags)?)
}

/// Attaches a copy at `target`.
pub(crate) fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// An empty file system that everybody may look into.
pub(crate) fn empty(target: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("stage", target, "tmpfs", flags, c"mode=755,size=1m")?)
}

/// Shows the files of a copy with the ids that they have inside a user namespace.
pub(crate) fn map_ids(tree: &OwnedFd, user_namespace: impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: open descriptors, a string that ends in NUL, and a structure of the size said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

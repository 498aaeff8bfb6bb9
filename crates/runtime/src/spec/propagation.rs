//! Mounts travel between host and container only where the host's mount does its part. `/` is shared where systemd
//! runs and private elsewhere; a volume that silently kept its mounts to itself would be worse than none.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use sampan_cri::v1::MountPropagation;

use super::SpecError;

/// How a mount passes on what is mounted in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Peers {
    /// It tells others.
    shared: bool,
    /// It is told by others.
    slave: bool,
}

/// Whether what is mounted below `source` can travel in this way.
pub(super) fn check(source: &Path, wanted: MountPropagation) -> Result<(), SpecError> {
    let ok = |peers: Peers| match wanted {
        MountPropagation::PropagationPrivate => true,
        MountPropagation::PropagationHostToContainer => peers.shared || peers.slave,
        MountPropagation::PropagationBidirectional => peers.shared,
    };
    if wanted == MountPropagation::PropagationPrivate {
        return Ok(());
    }
    let Some((point, peers)) = mount_of(source) else { return Ok(()) };
    if ok(peers) {
        return Ok(());
    }
    let kind = match wanted {
        MountPropagation::PropagationBidirectional => "shared",
        _ => "shared or slave",
    };
    Err(SpecError::invalid(format!(
        "path {:?} is mounted on {point:?} but it is not a {kind} mount: `mount --make-rshared {point}` makes it one",
        source.display().to_string()
    )))
}

/// The mount that holds `path`; `None` where the kernel does not tell (before 5.8).
fn mount_of(path: &Path) -> Option<(String, Peers)> {
    let asked = StatxFlags::MNT_ID;
    let told = rustix::fs::statx(CWD, path, AtFlags::empty(), asked).ok()?;
    if told.stx_mask & asked.bits() == 0 {
        return None;
    }
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    find(&String::from_utf8_lossy(&mounts), told.stx_mnt_id)
}

fn find(mountinfo: &str, id: u64) -> Option<(String, Peers)> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()?.parse() != Ok(id) {
            return None;
        }
        let point = fields.nth(3)?.to_owned();
        let mut peers = Peers::default();
        for field in fields.skip(1).take_while(|field| *field != "-") {
            peers.shared |= field.starts_with("shared:");
            peers.slave |= field.starts_with("master:");
        }
        Some((point, peers))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_54_peers_are_read_from_mountinfo() {
        let text = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            28 27 0:5 / /dev rw shared:2 - devtmpfs none rw\n\
            29 27 0:6 / /a\\040b rw master:3 propagate_from:1 - tmpfs none rw\n";
        let peers = |shared, slave| Peers { shared, slave };
        assert_eq!(find(text, 27), Some(("/".to_owned(), peers(false, false))));
        assert_eq!(find(text, 28), Some(("/dev".to_owned(), peers(true, false))));
        assert_eq!(find(text, 29), Some(("/a\\040b".to_owned(), peers(false, true))));
        assert_eq!(find(text, 3), None);
    }
}

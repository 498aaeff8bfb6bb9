//! Device nodes and who may use them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sampan_cri::v1;
use serde_json::{Value, json};

use super::SpecError;

/// Devices of a directory such as `/dev/snd`, and of a privileged container.
const MAX_DEVICES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// `linux.devices` and the rules of `linux.resources.devices`. The OCI runtime adds the usual nodes (null,
/// zero, full, random, urandom, tty) itself.
pub(super) fn devices(
    wanted: &[v1::Device],
    privileged: bool,
) -> Result<(Vec<Value>, Vec<Value>), SpecError> {
    let mut found = Vec::new();
    if privileged {
        collect(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut found);
    }
    for device in wanted {
        let host = Path::new(&device.host_path);
        // A device may be named through a link (/dev/disk/by-id).
        let real = fs::canonicalize(host).map_err(|source| SpecError::Io {
            operation: "stat device",
            path: host.to_owned(),
            source,
        })?;
        if !device.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(SpecError::invalid(format!("invalid device permissions {:?}", device.permissions)));
        }
        let inside = if device.container_path.is_empty() { host } else { Path::new(&device.container_path) };
        let before = found.len();
        collect(&real, inside, &device.permissions, 0, &mut found);
        if found.len() == before {
            return Err(SpecError::invalid(format!("{} is not a device", host.display())));
        }
    }
    let nodes = found.iter().map(Device::node).collect();
    let rules = if privileged {
        vec![json!({"allow": true, "access": "rwm"})]
    } else {
        let mut rules = default_rules();
        rules.extend(found.iter().map(Device::rule));
        rules
    };
    Ok((nodes, rules))
}

/// Everything is forbidden but making nodes and using the harmless ones; as every runtime has it.
fn default_rules() -> Vec<Value> {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for kind in ["c", "b"] {
        rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    // null, zero, full, random, urandom, tty, console, ptmx.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    // pts.
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    rules
}

struct Device {
    path: PathBuf,
    kind: &'static str,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    access: String,
}

impl Device {
    fn node(&self) -> Value {
        json!({
            "path": self.path, "type": self.kind, "major": self.major, "minor": self.minor,
            "fileMode": self.mode, "uid": self.uid, "gid": self.gid,
        })
    }

    fn rule(&self) -> Value {
        json!({
            "allow": true, "type": self.kind, "major": self.major, "minor": self.minor, "access": self.access,
        })
    }
}

/// The devices at and below `host`; what the container's own /dev has is left out.
fn collect(host: &Path, inside: &Path, access: &str, depth: usize, found: &mut Vec<Device>) {
    const OWN: &[&str] = &[
        "/dev/pts",
        "/dev/ptmx",
        "/dev/shm",
        "/dev/fd",
        "/dev/mqueue",
        "/dev/console",
        "/dev/.lxc",
        "/dev/.udev",
    ];
    if found.len() >= MAX_DEVICES
        || depth > MAX_DEPTH
        || (depth > 0 && OWN.iter().any(|own| inside == Path::new(own)))
    {
        return;
    }
    let Ok(metadata) = fs::symlink_metadata(host) else { return };
    if metadata.is_dir() {
        let Ok(entries) = fs::read_dir(host) else { return };
        for entry in entries.flatten() {
            collect(&entry.path(), &inside.join(entry.file_name()), access, depth + 1, found);
        }
        return;
    }
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return,
    };
    let number = metadata.rdev();
    found.push(Device {
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    });
}

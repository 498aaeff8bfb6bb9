//! Linux capabilities: the default set, what a container adds and drops, and what can be given at all.

use std::fs;

use sampan_cri::v1;
use serde_json::{Value, json};

use super::SpecError;

/// Every capability by number (`capability.h` of Linux 6).
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when it asks for nothing: the set that docker, containerd and CRI-O share.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Capabilities by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySet(u64);

impl CapabilitySet {
    fn of(names: &[&str]) -> Self {
        names.iter().filter_map(|name| number(name)).fold(Self(0), |set, bit| Self(set.0 | 1 << bit))
    }

    pub(crate) fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    fn names(self) -> Vec<&'static str> {
        ALL.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }

    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        Self::of(ALL)
    }
}

fn number(name: &str) -> Option<usize> {
    ALL.iter().position(|have| *have == name)
}

/// Our own bounding set.
pub(super) fn own() -> CapabilitySet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .map_or(CapabilitySet::default(), CapabilitySet)
}

/// The `process.capabilities` of a container. ALL first, then single names: `drop: [ALL], add: [NET_ADMIN]`
/// leaves exactly one. What we do not have ourselves is left out, as runc does.
pub(super) fn capabilities(
    security: &v1::LinuxContainerSecurityContext,
    own: CapabilitySet,
) -> Result<Value, SpecError> {
    let asked = security.capabilities.clone().unwrap_or_default();
    let (mut set, mut ambient) = (CapabilitySet::of(DEFAULT), CapabilitySet::default());
    if security.privileged {
        set = CapabilitySet::of(ALL);
    } else {
        if has_all(&asked.add_capabilities) {
            set = CapabilitySet::of(ALL);
        }
        if has_all(&asked.add_ambient_capabilities) {
            set = CapabilitySet::of(ALL);
            ambient = set;
        }
        if has_all(&asked.drop_capabilities) {
            set = CapabilitySet::default();
            ambient = CapabilitySet::default();
        }
        for bit in bits(&asked.add_capabilities)? {
            set.0 |= 1 << bit;
        }
        for bit in bits(&asked.add_ambient_capabilities)? {
            set.0 |= 1 << bit;
            ambient.0 |= 1 << bit;
        }
        for bit in bits(&asked.drop_capabilities)? {
            set.0 &= !(1 << bit);
            ambient.0 &= !(1 << bit);
        }
    }
    let names = CapabilitySet(set.0 & own.0).names();
    let ambient = CapabilitySet(ambient.0 & own.0).names();
    Ok(json!({
        "bounding": names,
        "effective": names,
        "permitted": names,
        // Only what is ambient may be inheritable: inherited sets leak through file capabilities.
        "inheritable": ambient,
        "ambient": ambient,
    }))
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

/// The numbers of the names other than ALL, with or without `CAP_`.
fn bits(names: &[String]) -> Result<Vec<usize>, SpecError> {
    names
        .iter()
        .filter(|name| !name.eq_ignore_ascii_case("ALL"))
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            number(&full).ok_or_else(|| SpecError::invalid(format!("unknown capability {full:?}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bounding(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let security = v1::LinuxContainerSecurityContext {
            capabilities: Some(v1::Capability {
                add_capabilities: owned(add),
                drop_capabilities: owned(drop),
                ..Default::default()
            }),
            ..Default::default()
        };
        let json = capabilities(&security, CapabilitySet::everything()).unwrap();
        serde_json::from_value(json["bounding"].clone()).unwrap()
    }

    #[test]
    fn all_comes_before_single_names() {
        assert_eq!(bounding(&[], &[]).len(), 14);
        assert_eq!(bounding(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(bounding(&["ALL"], &["CAP_NET_RAW"]).len(), ALL.len() - 1);
        assert!(bounding(&["sys_time"], &[]).contains(&"CAP_SYS_TIME".to_owned()));
        assert!(bits(&["NO_SUCH".to_owned()]).is_err());
    }

    #[test]
    fn nothing_beyond_our_own_set_is_given() {
        let security = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        let json = capabilities(&security, CapabilitySet::of(&["CAP_KILL"])).unwrap();
        assert_eq!(json["effective"], json!(["CAP_KILL"]));
    }
}

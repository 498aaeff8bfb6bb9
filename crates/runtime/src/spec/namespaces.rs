//! Which namespaces a container joins, makes or leaves alone.

use std::path::PathBuf;

use sampan_cri::v1::{NamespaceMode, NamespaceOption};
use serde_json::{Value, json};

use super::SpecError;

/// The namespaces of one container. `None` is the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SandboxNamespaces {
    /// Network.
    pub(crate) net: Option<PathBuf>,
    /// System V IPC.
    pub(crate) ipc: Option<PathBuf>,
    /// Hostname.
    pub(crate) uts: Option<PathBuf>,
    /// Processes.
    pub(crate) pid: PidNamespace,
}

/// Where a container's pid namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// A new one.
    #[default]
    Own,
    /// The host's.
    Host,
    /// The pod's, or another container's.
    Path(PathBuf),
}

impl SandboxNamespaces {
    /// The namespaces of a container in a sandbox that has `pod`. `target` gives the pid namespace of another
    /// container of the pod (ephemeral containers).
    pub(crate) fn new(
        pod: &sampan_shim::protocol::Sandbox,
        options: &NamespaceOption,
        target: impl FnOnce(&str) -> Result<PathBuf, SpecError>,
    ) -> Result<Self, SpecError> {
        let pid = match options.pid() {
            NamespaceMode::Container => PidNamespace::Own,
            NamespaceMode::Node => PidNamespace::Host,
            NamespaceMode::Pod => {
                let path = pod.pid.clone();
                // A sandbox made without a shared pid namespace has none to share: crictl's default.
                path.map_or(PidNamespace::Own, PidNamespace::Path)
            }
            NamespaceMode::Target => PidNamespace::Path(target(&options.target_id)?),
        };
        Ok(Self { net: pod.net.clone(), ipc: pod.ipc.clone(), uts: pod.uts.clone(), pid })
    }
}

/// `linux.namespaces`. With `own_cgroups` the container's cgroup is the root of what it sees.
pub(super) fn namespaces(of: &SandboxNamespaces, own_cgroups: bool) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    for (kind, path) in [("network", &of.net), ("ipc", &of.ipc), ("uts", &of.uts)] {
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
    }
    match &of.pid {
        PidNamespace::Own => list.push(json!({"type": "pid"})),
        PidNamespace::Host => {}
        PidNamespace::Path(path) => list.push(json!({"type": "pid", "path": path})),
    }
    if own_cgroups {
        list.push(json!({"type": "cgroup"}));
    }
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unprivileged_container_on_v2_sees_its_own_cgroups() {
        let of = SandboxNamespaces { net: None, ipc: None, uts: None, pid: PidNamespace::Own };
        assert_eq!(namespaces(&of, true), json!([{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]));
        assert_eq!(namespaces(&of, false), json!([{"type": "mount"}, {"type": "pid"}]));
    }
}

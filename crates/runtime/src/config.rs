//! How a runtime is set up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sampan_cri::streaming;

use crate::images::ImageStore;
use crate::network::SandboxNetwork;

/// The name of the embedded OCI runtime's handler.
pub const EMBEDDED: &str = "sampan";

/// What runs the containers of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerConfig {
    /// Our own OCI runtime, in a fresh process of our own binary.
    Embedded,
    /// A binary with runc's command line.
    Binary {
        /// The executable, absolute.
        path: PathBuf,
        /// Arguments before the command.
        args: Vec<String>,
        /// Its state directory; one below the run directory when absent.
        root: Option<PathBuf>,
        /// Which annotations of pods their containers' specifications get: names, or beginnings of names that
        /// end with `*` (`dev.gvisor.*`).
        annotations: Vec<String>,
    },
}

impl HandlerConfig {
    /// A binary without options.
    pub fn binary(path: impl Into<PathBuf>) -> Self {
        Self::Binary { path: path.into(), args: Vec::new(), root: None, annotations: Vec::new() }
    }
}

/// Who manages cgroups above the containers (told to the kubelet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain directories; the only one that the embedded runtime has.
    #[default]
    Cgroupfs,
    /// Slices of systemd.
    Systemd,
}

/// Everything that [`Runtime::start`](crate::Runtime::start) needs.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// `<data-dir>/runtime`: records of sandboxes and containers.
    pub data_dir: PathBuf,
    /// Sockets, namespaces, bundles: what does not survive a boot.
    pub run_dir: PathBuf,
    /// Our own binary: it becomes the shim and the embedded OCI runtime.
    pub executable: PathBuf,
    /// Handlers by name (a RuntimeClass's `handler`).
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// The handler of pods that name none.
    pub default_handler: String,
    /// Directories as in `PATH` in which runc, crun, runsc and kata-runtime are handlers under their own names;
    /// looked at each time, so that an engine may be installed later.
    pub search_path: Option<String>,
    /// The pods' network.
    pub network: Arc<dyn SandboxNetwork>,
    /// The images.
    pub images: Arc<ImageStore>,
    /// Told to the kubelet.
    pub cgroup_driver: CgroupDriver,
    /// Where exec, attach and port-forward are served.
    pub streaming: streaming::Config,
    /// The hosts' resolver configuration for pods that bring none.
    pub resolv_conf: PathBuf,
}

impl std::fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeConfig")
            .field("data_dir", &self.data_dir)
            .field("run_dir", &self.run_dir)
            .field("handlers", &self.handlers)
            .field("default_handler", &self.default_handler)
            .finish_non_exhaustive()
    }
}

impl RuntimeConfig {
    /// The usual: only the embedded handler, cgroupfs, streaming on a free loopback port.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        executable: impl Into<PathBuf>,
        images: Arc<ImageStore>,
        network: Arc<dyn SandboxNetwork>,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            executable: executable.into(),
            handlers: BTreeMap::from([(EMBEDDED.to_owned(), HandlerConfig::Embedded)]),
            default_handler: EMBEDDED.to_owned(),
            search_path: None,
            network,
            images,
            cgroup_driver: CgroupDriver::default(),
            streaming: streaming::Config::default(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

//! Handler names and the OCI runtimes behind them (RTC-16: "" is the default one).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sampan_shim::protocol::OciRuntime;
use tonic::Status;

use crate::config::{HandlerConfig, RuntimeConfig};
use crate::error::Error;

/// How long a runtime may take to clean up after a container whose shim died.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);

/// All handlers of a runtime.
#[derive(Debug)]
pub(crate) struct Handlers {
    default: String,
    runtimes: BTreeMap<String, OciRuntime>,
    embedded: Vec<String>,
}

impl Handlers {
    pub(crate) fn new(config: &RuntimeConfig) -> Result<Self, Error> {
        if !config.handlers.contains_key(&config.default_handler) {
            return Err(Error::DefaultHandler(config.default_handler.clone()));
        }
        let mut runtimes = BTreeMap::new();
        let mut embedded = Vec::new();
        for (name, handler) in &config.handlers {
            let root = config.run_dir.join("oci").join(name);
            let runtime = match handler {
                HandlerConfig::Embedded => {
                    embedded.push(name.clone());
                    OciRuntime {
                        path: config.executable.clone(),
                        args: vec!["oci".to_owned()],
                        root,
                        hide_unified: false,
                        opaque: false,
                    }
                }
                HandlerConfig::Binary { path, args, root: given } => OciRuntime {
                    path: path.clone(),
                    args: args.clone(),
                    root: given.clone().unwrap_or(root),
                    hide_unified: file_name(path).contains("crun"),
                    opaque: ["runsc", "kata"].iter().any(|name| file_name(path).contains(name)),
                },
            };
            runtimes.insert(name.clone(), runtime);
        }
        Ok(Self { default: config.default_handler.clone(), runtimes, embedded })
    }

    /// The OCI runtime of a handler. RTC-18: the text names the handler.
    pub(crate) fn get(&self, handler: &str) -> Result<&OciRuntime, Status> {
        let name = if handler.is_empty() { &self.default } else { handler };
        self.runtimes
            .get(name)
            .ok_or_else(|| Status::invalid_argument(format!("no runtime for {handler:?} is configured")))
    }

    /// Every name, and whether it is the embedded runtime; the default once more as "".
    pub(crate) fn names(&self) -> Vec<(String, bool)> {
        let is_embedded = |name: &String| self.embedded.contains(name);
        let default = (String::new(), is_embedded(&self.default));
        let all = self.runtimes.keys().map(|name| (name.clone(), is_embedded(name)));
        std::iter::once(default).chain(all).collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Runs the OCI runtime's `delete --force` without a shim: for containers whose shim died.
pub(crate) async fn delete_without_shim(runtime: &OciRuntime, id: &str) {
    let mut command = tokio::process::Command::new(&runtime.path);
    command
        .args(&runtime.args)
        .arg("--root")
        .arg(&runtime.root)
        .args(["delete", "--force", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .kill_on_drop(true);
    match tokio::time::timeout(DELETE_TIMEOUT, command.status()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, container = id, "deleting a container without its shim"),
        Err(_) => tracing::warn!(container = id, "deleting a container without its shim took too long"),
    }
}

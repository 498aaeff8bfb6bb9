//! Handler names and the OCI runtimes behind them (RTC-16: "" is the default one; RTC-20: the table).
//!
//! The table can be replaced while pods run: a pod keeps the runtime that its sandbox was made with. A pod whose
//! handler is not there or does not work is refused; it is never run by another one.

mod delete;
mod engine;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sampan_shim::protocol::OciRuntime;
use tokio::time::Instant;
use tonic::Status;

pub(crate) use self::delete::delete_without_shim;
pub use self::engine::{Engine, Identity, Unusable, identify};
use crate::config::{HandlerConfig, RuntimeConfig};
use crate::error::Error;
use crate::user_namespace;

/// Engines that are handlers under their own names wherever they are installed.
pub const KNOWN_ENGINES: [&str; 4] = ["crun", "kata-runtime", "runc", "runsc"];

/// After this time a binary that could not be used is tried again, even if its file is the same.
const FORGIVE: Duration = Duration::from_secs(10);

/// All handlers of a runtime.
#[derive(Debug)]
pub(crate) struct Handlers {
    executable: PathBuf,
    /// Below it each handler keeps its state, unless it is told otherwise.
    oci_dir: PathBuf,
    /// `PATH`, where engines may come and go.
    search_path: Option<String>,
    table: RwLock<Arc<Table>>,
    probes: std::sync::Mutex<BTreeMap<PathBuf, Arc<Probe>>>,
}

#[derive(Debug)]
struct Table {
    default: String,
    handlers: BTreeMap<String, HandlerConfig>,
}

/// What is known of a binary; the lock is held while it is asked, so that it is asked once.
type Probe = tokio::sync::Mutex<Option<Probed>>;

#[derive(Debug)]
struct Probed {
    file: Option<Fingerprint>,
    at: Instant,
    result: Result<Identity, Unusable>,
    /// What it was when it last worked.
    good: Option<Identity>,
}

/// Another file, or a changed one, has another.
type Fingerprint = (u64, u64, i64, i64, u64, u32);

/// A handler that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    pub(crate) oci: OciRuntime,
    /// Which of the pod's annotations its containers get: names, or beginnings of names that end with `*`.
    pub(crate) annotations: Vec<String>,
    /// Whether it runs pods in user namespaces of their own.
    pub(crate) user_namespaces: bool,
}

/// A handler as status and people see it.
#[derive(Clone, Debug)]
pub(crate) struct Surveyed {
    pub(crate) name: String,
    pub(crate) is_default: bool,
    /// What runs it (none is the embedded runtime), or why it cannot be used.
    pub(crate) state: Result<Option<Identity>, Unusable>,
}

impl Handlers {
    pub(crate) fn new(config: &RuntimeConfig) -> Result<Self, Error> {
        let handlers = Self {
            executable: config.executable.clone(),
            oci_dir: config.run_dir.join("oci"),
            search_path: config.search_path.clone(),
            table: RwLock::new(Arc::new(Table { default: String::new(), handlers: BTreeMap::new() })),
            probes: std::sync::Mutex::default(),
        };
        handlers.replace(config.default_handler.clone(), config.handlers.clone())?;
        Ok(handlers)
    }

    /// Another table from now on. The old one stays when this one has no default handler.
    pub(crate) fn replace(
        &self,
        default: String,
        handlers: BTreeMap<String, HandlerConfig>,
    ) -> Result<(), Error> {
        if !handlers.contains_key(&default) && self.on_path(&default).is_none() {
            return Err(Error::DefaultHandler(default));
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table { default, handlers });
        Ok(())
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The name of the handler for pods that name none.
    pub(crate) fn default_name(&self) -> String {
        self.table().default.clone()
    }

    /// The runtime of a handler, once it is known to work. RTC-18: the text names the handler.
    pub(crate) async fn select(&self, handler: &str) -> Result<Handler, Status> {
        let table = self.table();
        let name = if handler.is_empty() { &table.default } else { handler };
        let Some(config) = table.handlers.get(name).cloned().or_else(|| self.on_path(name)) else {
            return Err(Status::invalid_argument(format!("no runtime for {handler:?} is configured")));
        };
        match self.examine(&config).await {
            Ok(identity) => Ok(self.handler(name, &config, identity.as_ref())),
            Err(reason) => {
                let text = format!("the runtime for {name:?} cannot be used: {reason}");
                Err(match reason {
                    Unusable::Wrong(_) => Status::failed_precondition(text),
                    Unusable::NotNow(_) => Status::unavailable(text),
                })
            }
        }
    }

    /// The runtime of a handler as its table has it, asked nothing: for clearing up.
    pub(crate) fn find(&self, handler: &str) -> Option<OciRuntime> {
        let table = self.table();
        let name = if handler.is_empty() { &table.default } else { handler };
        let config = table.handlers.get(name).cloned().or_else(|| self.on_path(name))?;
        Some(self.handler(name, &config, None).oci)
    }

    /// Every handler and how it is; all are asked at the same time. One that worked and only does not answer now is
    /// as it was: it does not go from the node's status for a moment.
    pub(crate) async fn survey(&self) -> Vec<Surveyed> {
        let table = self.table();
        let mut all = table.handlers.clone();
        for name in KNOWN_ENGINES {
            if !all.contains_key(name)
                && let Some(found) = self.on_path(name)
            {
                all.insert(name.to_owned(), found);
            }
        }
        let looks = all.into_iter().map(|(name, config)| {
            let is_default = name == table.default;
            async move {
                let state = match self.examine(&config).await {
                    Err(Unusable::NotNow(reason)) => {
                        self.last_good(&config).await.map(Some).ok_or(Unusable::NotNow(reason))
                    }
                    state => state,
                };
                Surveyed { name, is_default, state }
            }
        });
        futures::future::join_all(looks).await
    }

    async fn last_good(&self, config: &HandlerConfig) -> Option<Identity> {
        let HandlerConfig::Binary { path, .. } = config else { return None };
        self.probe(path).lock().await.as_ref()?.good.clone()
    }

    fn probe(&self, path: &Path) -> Arc<Probe> {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(probes.entry(path.to_owned()).or_default())
    }

    fn on_path(&self, name: &str) -> Option<HandlerConfig> {
        let path = KNOWN_ENGINES.contains(&name).then_some(self.search_path.as_deref()?)?;
        let files = path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name));
        files.into_iter().find(|file| file.is_file()).map(HandlerConfig::binary)
    }

    fn handler(&self, name: &str, config: &HandlerConfig, identity: Option<&Identity>) -> Handler {
        let root = self.oci_dir.join(name);
        match config {
            HandlerConfig::Embedded => Handler {
                oci: OciRuntime {
                    path: self.executable.clone(),
                    args: vec!["oci".to_owned()],
                    root,
                    hide_unified: false,
                    opaque: false,
                },
                annotations: Vec::new(),
                user_namespaces: runs_user_namespaces(None),
            },
            HandlerConfig::Binary { path, args, root: given, annotations } => {
                let engine = identity.map_or_else(|| guess(path), |identity| identity.engine);
                let mut args = args.clone();
                if engine == Engine::Runsc && !args.iter().any(|arg| arg.starts_with("--network")) {
                    // Each container has a gVisor kernel of its own. With the network stack in that kernel they
                    // would take the pod's address from each other; with the pod's stack they share it.
                    args.insert(0, "--network=host".to_owned());
                }
                Handler {
                    oci: OciRuntime {
                        path: path.clone(),
                        args,
                        root: given.clone().unwrap_or(root),
                        hide_unified: engine == Engine::Crun,
                        opaque: matches!(engine, Engine::Runsc | Engine::Kata),
                    },
                    annotations: annotations.clone(),
                    user_namespaces: identity.is_some_and(|identity| runs_user_namespaces(Some(identity))),
                }
            }
        }
    }

    /// What a handler's binary is; asked again when the file changed, and after a while when it did not work.
    async fn examine(&self, config: &HandlerConfig) -> Result<Option<Identity>, Unusable> {
        let HandlerConfig::Binary { path, .. } = config else { return Ok(None) };
        let probe = self.probe(path);
        let mut known = probe.lock().await;
        let file = fingerprint(path);
        let fresh =
            |probed: &Probed| probed.file == file && (probed.result.is_ok() || probed.at.elapsed() < FORGIVE);
        if let Some(probed) = known.as_ref().filter(|probed| fresh(probed)) {
            return probed.result.clone().map(Some);
        }
        let result = identify(path).await;
        if let Err(reason) = &result {
            let before = known.as_ref().and_then(|probed| probed.result.as_ref().err());
            if before != Some(reason) {
                tracing::warn!(path = %path.display(), %reason, "an OCI runtime cannot be used");
            }
        }
        let good = match &result {
            Ok(identity) => Some(identity.clone()),
            Err(Unusable::NotNow(_)) => known.take().and_then(|before| before.good),
            Err(Unusable::Wrong(_)) => None,
        };
        *known = Some(Probed { file, at: Instant::now(), result: result.clone(), good });
        result.map(Some)
    }
}

/// Whether an OCI runtime (none is the embedded one) runs pods in user namespaces: it has to map the ids of mounts.
pub(crate) fn runs_user_namespaces(identity: Option<&Identity>) -> bool {
    user_namespace::is_supported() && identity.is_none_or(|identity| identity.id_mapped_mounts)
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size(), file.mode()))
}

/// What a binary probably is, when it cannot be asked.
fn guess(path: &Path) -> Engine {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let families =
        [("crun", Engine::Crun), ("runsc", Engine::Runsc), ("kata", Engine::Kata), ("runc", Engine::Runc)];
    families.into_iter().find(|(part, _)| name.contains(part)).map_or(Engine::Other, |(_, engine)| engine)
}

/// Whether a pod's annotation is one that the handler's containers get.
pub(crate) fn passes(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    })
}

#[cfg(test)]
mod tests;

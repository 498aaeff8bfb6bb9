//! The runtime itself: its sandboxes and containers in memory, and what they share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sampan_cri::streaming;
use sampan_oci::Platform;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::cgroups::moves::Moves;
use crate::config::{HandlerConfig, RuntimeConfig};
use crate::container::Container;
use crate::error::Error;
use crate::events::Events;
use crate::handlers::Handlers;
use crate::restart;
use crate::runtime_service::Service;
use crate::sandbox::Sandbox;
use crate::spec::Host;
use crate::state::State;

/// A running container runtime.
///
/// Locks: the maps are held for lookups only. Each sandbox and container has an async lock of its own for the
/// operations that change it, so slow work on one never holds up another.
pub struct Runtime {
    pub(crate) config: RuntimeConfig,
    pub(crate) host: Host,
    /// Told of what will move processes between cgroups.
    pub(crate) moves: Moves,
    pub(crate) handlers: Handlers,
    pub(crate) state: State,
    pub(crate) events: Events,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    /// Names in use, with the id that has them.
    names: Mutex<HashMap<String, String>>,
    streaming: OnceLock<streaming::Server>,
    /// Ends the background tasks of this process; containers run on.
    pub(crate) shutdown: CancellationToken,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Takes over the state on disk and starts the streaming server.
    ///
    /// # Errors
    /// When a directory cannot be used, the default handler is not configured, or no port is free.
    pub async fn start(config: RuntimeConfig) -> Result<Arc<Self>, Error> {
        for dir in ["shims", "sandboxes", "containers", "oci"] {
            let path = config.run_dir.join(dir);
            std::fs::create_dir_all(&path).map_err(|source| Error::Directory {
                operation: "create",
                path,
                source,
            })?;
        }
        let handlers = Handlers::new(&config)?;
        let state = State::open(&config.data_dir)?;
        let host = tokio::task::spawn_blocking(Host::read).await.unwrap_or_else(|_| Host::read());
        let runtime = Arc::new(Self {
            handlers,
            state,
            moves: Moves::new(host.cgroups.clone()),
            host,
            events: Events::new(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            names: Mutex::default(),
            streaming: OnceLock::new(),
            shutdown: CancellationToken::new(),
            config,
        });
        restart::take_over(&runtime).await?;
        let service = Arc::new(crate::streaming::Streaming::new(&runtime));
        let server =
            streaming::Server::start(runtime.config.streaming.clone(), service, runtime.shutdown.clone())
                .await?;
        let _ = runtime.streaming.set(server);
        Ok(runtime)
    }

    /// Another table of handlers from now on; pods that run keep what they were made with.
    ///
    /// # Errors
    /// When the default handler is none of them; then nothing changes.
    pub fn set_handlers(
        &self,
        default: String,
        handlers: BTreeMap<String, HandlerConfig>,
        platforms: BTreeMap<String, Platform>,
    ) -> Result<(), Error> {
        self.handlers.replace(default, handlers)?;
        self.config.images.set_handler_platforms(platforms);
        Ok(())
    }

    /// Serves CRI on the unix socket at `path` until `shutdown`. Containers run on after that.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn serve(self: &Arc<Self>, path: &Path, shutdown: CancellationToken) -> Result<(), Error> {
        let images = crate::image_service::ImageService::new(Arc::clone(&self.config.images));
        let stopping = self.shutdown.clone();
        // Event streams would hold the server open for ever.
        let end_streams = shutdown.clone();
        tokio::spawn(async move {
            end_streams.cancelled().await;
            stopping.cancel();
        });
        let service = Service(Arc::clone(self));
        let services = sampan_cri::server::Services {
            runtime: service,
            images: images.clone(),
            progress: images.clone(),
            archives: images,
        };
        sampan_cri::server::serve_all(path, services, shutdown).await?;
        Ok(())
    }

    /// Whether any sandbox is running: as long as one is, its network must stay.
    pub fn has_running_sandboxes(&self) -> bool {
        !self.living().is_empty()
    }

    /// The streaming server's URLs.
    pub(crate) fn streaming(&self) -> Result<&streaming::Server, Status> {
        self.streaming.get().ok_or_else(|| Status::unavailable("the streaming server has not started yet"))
    }

    pub(crate) fn sandbox_map(&self) -> MutexGuard<'_, HashMap<String, Arc<Sandbox>>> {
        self.sandboxes.lock().expect("no panic under this lock")
    }

    pub(crate) fn container_map(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.containers.lock().expect("no panic under this lock")
    }

    /// A sandbox by id or by the unambiguous beginning of one.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        find(&self.sandbox_map(), id).ok_or_else(|| {
            Status::not_found(format!("an error occurred when try to find sandbox {id:?}: not found"))
        })
    }

    /// A container by id or by the unambiguous beginning of one.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        find(&self.container_map(), id).ok_or_else(|| {
            Status::not_found(format!("an error occurred when try to find container {id:?}: not found"))
        })
    }

    pub(crate) fn all_sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandbox_map().values().cloned().collect()
    }

    pub(crate) fn all_containers(&self) -> Vec<Arc<Container>> {
        self.container_map().values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.container_map().values().filter(|container| container.sandbox_id == sandbox).cloned().collect()
    }

    /// Takes a name for an id; the same name cannot be had twice.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), Status> {
        let mut names = self.names.lock().expect("no panic under this lock");
        if let Some(owner) = names.get(name) {
            return Err(Status::already_exists(format!(
                "failed to reserve name {name:?}: name {name:?} is reserved for {owner:?}"
            )));
        }
        names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub(crate) fn release(&self, id: &str) {
        self.names.lock().expect("no panic under this lock").retain(|_, owner| owner != id);
    }

    /// A shim's directory.
    pub(crate) fn shim_dir(&self, sandbox: &str) -> PathBuf {
        self.config.run_dir.join("shims").join(sandbox)
    }

    /// A sandbox's files: `resolv.conf`, `hosts`, `hostname`, `shm`.
    pub(crate) fn sandbox_dir(&self, sandbox: &str) -> PathBuf {
        self.config.run_dir.join("sandboxes").join(sandbox)
    }

    /// A container's OCI bundle.
    pub(crate) fn bundle(&self, container: &str) -> PathBuf {
        self.config.run_dir.join("containers").join(container)
    }

    /// The ids of sandboxes that have a network.
    pub(crate) fn living(&self) -> HashSet<String> {
        self.sandbox_map()
            .values()
            .filter(|sandbox| sandbox.is_ready())
            .map(|sandbox| sandbox.id.clone())
            .collect()
    }
}

fn find<T>(map: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = map.get(id) {
        return Some(Arc::clone(found));
    }
    if id.is_empty() {
        return None;
    }
    let mut matching = map.iter().filter(|(key, _)| key.starts_with(id)).map(|(_, value)| value);
    let first = matching.next()?;
    matching.next().is_none().then(|| Arc::clone(first))
}

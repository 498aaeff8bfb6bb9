//! The store inside the process: redb behind one writer thread.
//!
//! All writes go through that thread. It takes every transaction that waits, applies them one after the other
//! (each with its own revision), makes them durable with a single fsync and then acknowledges all of them:
//! group commit. Reads use redb's own snapshots and never wait for the writer. Watches are fed from memory
//! and fall back to the log on disk when they start in the past or lag.

mod apply;
mod database;
mod failure;
mod hub;
mod leases;
mod lock;
mod read;
mod record;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::database::Database;
use self::hub::Hub;
use self::lock::DirectoryLock;
use self::writer::{Command, Writer};
use crate::{Error, KeyRange, RangeRequest, RangeResponse, Revision, Store, Txn, TxnResponse, Watch};

/// How the embedded store behaves; the defaults suit a single node.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of memory for redb's page cache. Small: the daemon's whole promise is 60 MB.
    pub cache_bytes: usize,
    /// How many revisions are kept at least for reads in the past and for watches that resume; older ones are
    /// compacted without being asked.
    pub history: i64,
    /// Bytes that must be free on the file system for a transaction that puts something. redb cannot go on after
    /// a failed write, so a full disk has to be noticed before. Zero leaves it to redb.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 8 << 20, history: 10_000, reserve_bytes: 8 << 20 }
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    _lock: DirectoryLock,
}

/// What the writer, the readers and the watches have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    directory: PathBuf,
    database: Database,
    hub: Hub,
}

impl Embedded {
    /// Opens the store in the directory `path`, which is created when it does not exist.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open, [`Error::Damaged`] when its file is not intact.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        Self::open_with(path, Options::default())
    }

    /// [`Embedded::open`] with other than the default options.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(path: &Path, options: Options) -> Result<Arc<Self>, Error> {
        std::fs::create_dir_all(path).map_err(|source| Error::Io {
            operation: "create directory",
            path: path.to_owned(),
            source,
        })?;
        let lock = DirectoryLock::acquire(path)?;
        let database = Database::open(path, options.cache_bytes)?;
        let state = database.read(read::state)?;
        let shared = Arc::new(Shared { directory: path.to_owned(), database, hub: Hub::new(state.revision) });
        let (commands, queue) = mpsc::channel();
        let writer = Writer::new(shared.clone(), options, state)?;
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|source| Error::Io {
                operation: "start the writer thread of",
                path: path.to_owned(),
                source,
            })?;
        Ok(Arc::new(Self { shared, commands: Some(commands), writer: Mutex::new(Some(thread)), _lock: lock }))
    }

    async fn submit<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(Error::Closed)?;
        commands.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    /// Waits for the writer, so that the directory's lock is free when this returns.
    fn drop(&mut self) {
        self.commands = None;
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(directory = %self.shared.directory.display(), "the store's writer panicked");
        }
        self.shared.hub.close();
        self.shared.database.close();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.shared.hub.revision())
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        // One key is a few microseconds, less than a hop to another thread.
        if request.range == KeyRange::key(&request.range.start) && request.at.is_none() {
            return self.shared.database.read(|txn| read::range(txn, &request));
        }
        let shared = self.shared.clone();
        blocking(move || shared.database.read(|txn| read::range(txn, &request))).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        self.submit(|reply| Command::Txn { txn, reply }).await
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Watch, Error> {
        Ok(watch::open(self.shared.clone(), range, from))
    }

    async fn compact(&self, at: Revision) -> Result<(), Error> {
        self.submit(|reply| Command::Compact { at, reply }).await
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, Error> {
        self.submit(|reply| Command::GrantLease { ttl_seconds, reply }).await
    }

    async fn revoke_lease(&self, id: i64) -> Result<(), Error> {
        self.submit(|reply| Command::RevokeLease { id, reply }).await
    }
}

/// Runs a read that may touch many pages where it cannot hold up the runtime.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closed)?
}

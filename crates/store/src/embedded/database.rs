//! The redb file: making it, opening it, and opening it again after a failed write.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};

use super::record::{
    COMPACTED, CURRENT, FIRST_REVISION, FORMAT, FORMAT_VERSION, LAST_LEASE, LEASE_KEYS, LEASES, LOG, META,
    REVISION,
};
use crate::Error;

/// How often and how long a read waits for a handle that works: opening again takes milliseconds.
const REOPEN_LOOKS: u32 = 200;
const REOPEN_LOOK: Duration = Duration::from_millis(5);

/// The database handle. redb refuses everything after a failed write until it is opened anew, hence the lock.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    cache_bytes: usize,
    handle: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file in `directory`; makes it when the directory has none.
    pub(super) fn open(directory: &Path, cache_bytes: usize) -> Result<Self, Error> {
        let path = directory.join("store.redb");
        match path.symlink_metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(directory, &path)?,
            Err(source) => return Err(Error::Io { operation: "open", path, source }),
        }
        let handle = open(&path, cache_bytes)?;
        Ok(Self { path, cache_bytes, handle: RwLock::new(Some(handle)) })
    }

    /// Runs a read in a snapshot of its own. A read that meets a handle which a failed write has just made useless
    /// waits for the writer to open the file again.
    pub(super) fn read<T>(
        &self,
        mut read: impl FnMut(&ReadTransaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..REOPEN_LOOKS {
            match self.read_once(&mut read) {
                Err(error) if error.is_useless_handle() => std::thread::sleep(REOPEN_LOOK),
                answer => return answer,
            }
        }
        self.read_once(read)
    }

    fn read_once<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let txn = {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            handle.as_ref().ok_or(Error::Closed)?.begin_read()?
        };
        read(&txn)
    }

    /// Begins the write of a commit; durable when it is committed.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Error> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        Ok(handle.as_ref().ok_or(Error::Closed)?.begin_write()?)
    }

    /// Closes and opens the file again, which takes redb back to the last commit that is on disk.
    pub(super) fn reopen(&self) -> Result<(), Error> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        *handle = None;
        *handle = Some(open(&self.path, self.cache_bytes)?);
        Ok(())
    }

    /// Closes the file.
    pub(super) fn close(&self) {
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Opens an existing file and checks all of it: redb trusts its pages afterwards.
fn open(path: &Path, cache_bytes: usize) -> Result<redb::Database, Error> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let length = path
        .metadata()
        .map_err(|source| Error::Io { operation: "open", path: path.to_owned(), source })?
        .len();
    if length == 0 {
        return Err(damaged("the file is empty".into()));
    }
    let opened = catch_unwind(AssertUnwindSafe(|| {
        redb::Builder::new().set_cache_size(cache_bytes).set_check_integrity_on_open(true).open(path)
    }));
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(source))))
            if source.kind() != std::io::ErrorKind::InvalidData
                && source.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            return Err(Error::Io { operation: "open", path: path.to_owned(), source });
        }
        Ok(Err(error)) => return Err(damaged(error.to_string())),
        Err(_) => return Err(damaged("its pages contradict each other".into())),
    };
    let format = (|| {
        let txn = database.begin_read()?;
        let meta = txn.open_table(META)?;
        Ok::<_, Error>(meta.get(FORMAT)?.map(|format| format.value()))
    })();
    match format {
        Ok(Some(FORMAT_VERSION)) => Ok(database),
        Ok(Some(other)) => {
            Err(damaged(format!("its layout is version {other}, this program knows {FORMAT_VERSION}")))
        }
        _ => Err(damaged("it is a redb file, but not a store".into())),
    }
}

/// Makes an empty store under another name and renames it, so that a crash leaves either none or a whole one.
fn create(directory: &Path, path: &Path) -> Result<(), Error> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { operation, path, source }
    };
    let unfinished = directory.join("store.redb.new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove", &unfinished)(error));
        }
        _ => {}
    }
    let database = redb::Builder::new().create(&unfinished).map_err(|error| Error::Embedded {
        operation: "create a database",
        source: std::sync::Arc::new(error.into()),
    })?;
    let txn = database.begin_write()?;
    {
        txn.open_table(CURRENT)?;
        txn.open_table(LOG)?;
        txn.open_table(LEASES)?;
        txn.open_table(LEASE_KEYS)?;
        let mut meta = txn.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(REVISION, FIRST_REVISION)?;
        meta.insert(COMPACTED, 0)?;
        meta.insert(LAST_LEASE, 0)?;
    }
    txn.commit()?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(io("create", path))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync", directory))
}

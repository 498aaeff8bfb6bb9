//! One transaction, compaction or lease applied to the tables of a commit.

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};

use super::read::{State, key_value};
use super::record::{
    COMPACTED, CURRENT, Entry, EntryId, Head, LAST_LEASE, LEASE_KEYS, LEASES, LOG, META, REVISION,
};
use crate::{Compare, Error, KeyValue, Op, Revision, Txn, TxnResponse, WatchBatch, WatchEvent};

/// The tables of one commit, and the store's numbers as they become.
pub(super) struct Tables<'txn> {
    current: Table<'txn, &'static [u8], &'static [u8]>,
    log: Table<'txn, u128, &'static [u8]>,
    leases: Table<'txn, i64, (i64, i64)>,
    lease_keys: Table<'txn, (i64, &'static [u8]), ()>,
    meta: Table<'txn, &'static str, i64>,
    /// The numbers; what is not on disk yet goes there with [`Tables::finish`].
    pub(super) state: State,
    /// What the commit tells the watches.
    pub(super) batches: Vec<WatchBatch>,
    /// Whether anything was written at all.
    pub(super) changed: bool,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction, state: State) -> Result<Self, Error> {
        Ok(Self {
            current: txn.open_table(CURRENT)?,
            log: txn.open_table(LOG)?,
            leases: txn.open_table(LEASES)?,
            lease_keys: txn.open_table(LEASE_KEYS)?,
            meta: txn.open_table(META)?,
            state,
            batches: Vec::new(),
            changed: false,
        })
    }

    /// Writes the numbers.
    pub(super) fn finish(mut self) -> Result<(State, Vec<WatchBatch>, bool), Error> {
        if self.changed {
            self.meta.insert(REVISION, self.state.revision)?;
            self.meta.insert(COMPACTED, self.state.compacted)?;
            self.meta.insert(LAST_LEASE, self.state.last_lease)?;
        }
        Ok((self.state, self.batches, self.changed))
    }

    /// Runs a transaction. An error of the request itself leaves the tables as they were.
    pub(super) fn transact(&mut self, txn: &Txn) -> Result<TxnResponse, Error> {
        self.check(txn)?;
        let mut succeeded = true;
        for Compare::ModRevision(key, revision) in &txn.when {
            let found = self.head(key)?.map_or(0, |head| head.entry.revision());
            succeeded &= found == revision.0;
        }
        if succeeded {
            let ops = txn.then.iter().map(|op| match op {
                Op::Put { key, value, lease } => Change { key, put: Some((value, *lease)) },
                Op::Delete(key) => Change { key, put: None },
            });
            self.write(ops)?;
        }
        let mut read = Vec::with_capacity(txn.read.len());
        for key in &txn.read {
            read.push(match self.head(key)? {
                Some(head) => Some(key_value(&self.log, head.entry)?),
                None => None,
            });
        }
        Ok(TxnResponse { succeeded, revision: Revision(self.state.revision), read })
    }

    fn check(&self, txn: &Txn) -> Result<(), Error> {
        if let Some(key) = txn.duplicate_key() {
            return Err(Error::DuplicateKey(String::from_utf8_lossy(key).into_owned()));
        }
        for op in &txn.then {
            if let Op::Put { lease, .. } = op
                && *lease != 0
                && self.leases.get(*lease)?.is_none()
            {
                return Err(Error::LeaseNotFound(*lease));
            }
        }
        Ok(())
    }

    /// Writes changes in one new revision; deleting what is not there changes nothing.
    fn write<'op>(&mut self, changes: impl Iterator<Item = Change<'op>>) -> Result<(), Error> {
        let revision = self.state.revision + 1;
        let mut events = Vec::new();
        for change in changes {
            let number = u32::try_from(events.len()).unwrap_or(u32::MAX);
            if let Some(event) = self.write_one(EntryId::new(revision, number), &change)? {
                events.push(event);
            }
        }
        if !events.is_empty() {
            self.changed = true;
            self.state.revision = revision;
            self.batches.push(WatchBatch { revision: Revision(revision), events: events.into() });
        }
        Ok(())
    }

    fn write_one(&mut self, id: EntryId, change: &Change<'_>) -> Result<Option<WatchEvent>, Error> {
        let key = change.key;
        let old = self.head(key)?;
        if old.is_none() && change.put.is_none() {
            return Ok(None);
        }
        let previous = match old {
            Some(head) => Some(key_value(&self.log, head.entry)?),
            None => None,
        };
        let (value, lease) = change.put.map_or((Bytes::new(), 0), |(value, lease)| (value.clone(), lease));
        let (create_revision, version) = match (&old, change.put) {
            (Some(head), Some(_)) => (head.create_revision, head.version + 1),
            (None, Some(_)) => (id.revision(), 1),
            (_, None) => (0, 0),
        };
        let entry = Entry {
            deleted: change.put.is_none(),
            previous: old.map_or(EntryId::NONE, |head| head.entry),
            create_revision,
            version,
            lease,
            key,
            value: &value,
        };
        self.log.insert(id.0, &*entry.encode())?;
        if entry.deleted {
            self.current.remove(&**key)?;
        } else {
            let head = Head { entry: id, create_revision, version, lease };
            self.current.insert(&**key, &head.encode()[..])?;
        }
        let old_lease = old.map_or(0, |head| head.lease);
        if old_lease != lease {
            if old_lease != 0 {
                self.lease_keys.remove((old_lease, &**key))?;
            }
            if lease != 0 {
                self.lease_keys.insert((lease, &**key), ())?;
            }
        }
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: Revision(create_revision),
            mod_revision: Revision(id.revision()),
            version,
            lease,
        };
        Ok(Some(WatchEvent { kv, previous, deleted: change.put.is_none() }))
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, Error> {
        match self.current.get(key)? {
            Some(bytes) => Ok(Some(Head::decode(bytes.value())?)),
            None => Ok(None),
        }
    }

    /// Forgets what only reads before `at` can see.
    pub(super) fn compact(&mut self, at: Revision) -> Result<(), Error> {
        if at.0 > self.state.revision {
            return Err(Error::Future(at));
        }
        if at.0 <= self.state.compacted {
            return Err(Error::Compacted { requested: at, oldest: Revision(self.state.compacted) });
        }
        // A change made before `at` has replaced its predecessor for every revision that stays readable, and
        // a deletion before `at` is itself past. The changes at `at` keep theirs: a watch from there shows it.
        let mut forgotten = Vec::new();
        for item in self.log.range(EntryId::new(self.state.compacted, 0).0..EntryId::new(at.0, 0).0)? {
            let (id, bytes) = item?;
            let entry = Entry::decode(bytes.value())?;
            if entry.previous.exists() {
                forgotten.push(entry.previous);
            }
            if entry.deleted {
                forgotten.push(EntryId(id.value()));
            }
        }
        for id in forgotten {
            self.log.remove(id.0)?;
        }
        self.state.compacted = at.0;
        self.changed = true;
        Ok(())
    }

    /// Makes a lease; returns its id.
    pub(super) fn grant_lease(&mut self, ttl_seconds: i64, deadline_millis: i64) -> Result<i64, Error> {
        self.state.last_lease += 1;
        self.leases.insert(self.state.last_lease, (ttl_seconds, deadline_millis))?;
        self.changed = true;
        Ok(self.state.last_lease)
    }

    /// Deletes a lease and, in one revision, its keys.
    pub(super) fn revoke_lease(&mut self, id: i64) -> Result<(), Error> {
        if self.leases.remove(id)?.is_none() {
            return Err(Error::LeaseNotFound(id));
        }
        self.changed = true;
        let mut keys = Vec::new();
        for item in self.lease_keys.range((id, &[][..])..)? {
            let (found, _) = item?;
            let (lease, key) = found.value();
            if lease != id {
                break;
            }
            keys.push(Bytes::copy_from_slice(key));
        }
        self.write(keys.iter().map(|key| Change { key, put: None }))
    }
}

/// What becomes of a key: a value and its lease, or deletion.
#[derive(Clone, Copy)]
struct Change<'op> {
    key: &'op Bytes,
    put: Option<(&'op Bytes, i64)>,
}

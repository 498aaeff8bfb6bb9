//! The words of the seam: revisions, keys and values, transactions, watches.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::Error;

/// A point in the history of the store. It grows by one with each transaction that writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A key with its value and the revisions that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When the key was created (since its last deletion).
    pub create_revision: Revision,
    /// When the value was last written.
    pub mod_revision: Revision,
    /// How often it was written since its creation; 1 right after it.
    pub version: i64,
    /// The lease that deletes it when it runs out; 0 is none.
    pub lease: i64,
}

/// The keys `start <= key < end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key beyond.
    pub end: Bytes,
}

impl KeyRange {
    /// The range that holds one key only.
    pub fn key(key: impl AsRef<[u8]>) -> Self {
        let start = Bytes::copy_from_slice(key.as_ref());
        let mut end = key.as_ref().to_vec();
        end.push(0);
        Self { start, end: end.into() }
    }

    /// All keys that begin with `prefix` (which does not end in a run of 0xff only).
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let mut end = prefix.as_ref().to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: Bytes::copy_from_slice(prefix.as_ref()), end: end.into() }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && *key < *self.end
    }
}

/// A read of a range at a revision.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; the newest when `None`.
    pub at: Option<Revision>,
    /// How many at most; 0 is no limit.
    pub limit: usize,
    /// Whether only the count is wanted.
    pub count_only: bool,
}

/// The answer to a [`RangeRequest`].
#[derive(Clone, Debug)]
pub struct RangeResponse {
    /// The store's newest revision when the answer was made.
    pub revision: Revision,
    /// The keys in order.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// How many keys the range holds in all.
    pub count: usize,
}

/// A condition of a transaction.
#[derive(Clone, Debug)]
pub enum Compare {
    /// The key's last write was at this revision; `Revision(0)` says that the key must not exist.
    ModRevision(Bytes, Revision),
}

/// A write in a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease it is bound to; 0 is none.
        lease: i64,
    },
    /// Deletes a key; one that does not exist is no error.
    Delete(Bytes),
}

impl Op {
    /// The key that it writes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// If every comparison holds, do `then`; nothing otherwise.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// What must hold.
    pub when: Vec<Compare>,
    /// What is written, in one revision.
    pub then: Vec<Op>,
    /// Keys to read: after the writes when they were done, instead of them otherwise.
    pub read: Vec<Bytes>,
}

impl Txn {
    /// A key that is written twice, which is not allowed.
    pub(crate) fn duplicate_key(&self) -> Option<&Bytes> {
        let repeated = |(at, op): &(usize, &Op)| self.then[..*at].iter().any(|other| other.key() == op.key());
        self.then.iter().enumerate().find(repeated).map(|(_, op)| op.key())
    }

    /// The first lease that a key is bound to; 0 is none.
    pub(crate) fn lease(&self) -> i64 {
        let lease = |op: &Op| if let Op::Put { lease, .. } = op { *lease } else { 0 };
        self.then.iter().map(lease).find(|lease| *lease != 0).unwrap_or(0)
    }
}

/// What became of a [`Txn`].
#[derive(Clone, Debug)]
pub struct TxnResponse {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The store's revision afterwards: that of the write, when one was done.
    pub revision: Revision,
    /// The keys of [`Txn::read`], in their order.
    pub read: Vec<Option<KeyValue>>,
}

/// A change that a watch reports.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// The key as it is now; for a deletion key and `mod_revision` (that of the deletion) only.
    pub kv: KeyValue,
    /// What was there before, if anything.
    pub previous: Option<KeyValue>,
    /// Whether the key was deleted.
    pub deleted: bool,
}

/// What a watch delivers: all events of one revision together, or a progress mark.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// Everything up to this revision has been delivered.
    pub revision: Revision,
    /// The events; empty for a progress mark.
    pub events: Arc<[WatchEvent]>,
}

/// A stream of changes. It ends with [`Error::Compacted`] when the reader fell too far behind.
pub type Watch = BoxStream<'static, Result<WatchBatch, Error>>;

/// The seam itself.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;
    /// Reads a range at one revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;
    /// Runs a transaction. When this returns, what it wrote survives a crash of process and machine.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;
    /// Reports changes in `range` from `from` on (inclusive); from now on when `None`. The stream begins
    /// with a progress mark of the revision from which it is live.
    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Watch, Error>;
    /// Forgets the history before `at`: reads and watches of older revisions then fail with [`Error::Compacted`].
    async fn compact(&self, at: Revision) -> Result<(), Error>;
    /// Makes a lease of `ttl_seconds`; returns its id.
    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, Error>;
    /// Deletes a lease and the keys bound to it.
    async fn revoke_lease(&self, id: i64) -> Result<(), Error>;
}

//! What is on disk: the tables and their records.
//!
//! The *log* holds each change once, under its revision and its place in it, with a pointer to the change of
//! the same key before. *Current* maps each living key to its change in the log. A value is so written once;
//! the past is reached by following the pointers, and compaction removes what nothing points to any more.

use bytes::Bytes;
use redb::TableDefinition;

use super::failure::unreadable;
use crate::{Error, KeyValue, Revision};

/// Living keys: key -> [`Head`].
pub(super) const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
/// All changes that are kept: [`EntryId`] -> [`Entry`].
pub(super) const LOG: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("log");
/// Leases: id -> (seconds to live, deadline in milliseconds since 1970).
pub(super) const LEASES: TableDefinition<'_, i64, (i64, i64)> = TableDefinition::new("leases");
/// The keys bound to a lease.
pub(super) const LEASE_KEYS: TableDefinition<'_, (i64, &[u8]), ()> = TableDefinition::new("lease-keys");
/// Single numbers, under the names that follow.
pub(super) const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
/// The version of this layout.
pub(super) const FORMAT: &str = "format";
/// The newest revision.
pub(super) const REVISION: &str = "revision";
/// The oldest revision that can be read.
pub(super) const COMPACTED: &str = "compacted";
/// The lease made last.
pub(super) const LAST_LEASE: &str = "last-lease";

/// The layout that this code writes.
pub(super) const FORMAT_VERSION: i64 = 1;
/// The revision of an empty store: etcd's.
pub(super) const FIRST_REVISION: i64 = 1;

/// The place of a change in the log: its revision and its number within the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId(pub(super) u128);

impl EntryId {
    /// No change.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(revision: i64, number: u32) -> Self {
        Self((revision.unsigned_abs() as u128) << 32 | u128::from(number))
    }

    pub(super) fn revision(self) -> i64 {
        i64::try_from(self.0 >> 32).unwrap_or(i64::MAX)
    }

    pub(super) fn exists(self) -> bool {
        self != Self::NONE
    }
}

/// What [`CURRENT`] says of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Where the value is.
    pub(super) entry: EntryId,
    pub(super) create_revision: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&self.entry.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.create_revision.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.version.to_le_bytes());
        bytes[32..].copy_from_slice(&self.lease.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        let head = (|| {
            Some(Self {
                entry: EntryId(u128::from_le_bytes(reader.take()?)),
                create_revision: i64::from_le_bytes(reader.take()?),
                version: i64::from_le_bytes(reader.take()?),
                lease: i64::from_le_bytes(reader.take()?),
            })
        })();
        head.ok_or_else(|| unreadable("current key"))
    }
}

/// A change as the log has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) deleted: bool,
    /// The change that this one replaced.
    pub(super) previous: EntryId,
    pub(super) create_revision: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(45 + self.key.len() + self.value.len());
        bytes.push(u8::from(self.deleted));
        bytes.extend(self.previous.0.to_le_bytes());
        bytes.extend(self.create_revision.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.lease.to_le_bytes());
        bytes.extend(u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.key);
        bytes.extend(self.value);
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        let entry = (|| {
            let [deleted] = reader.take()?;
            let previous = EntryId(u128::from_le_bytes(reader.take()?));
            let create_revision = i64::from_le_bytes(reader.take()?);
            let version = i64::from_le_bytes(reader.take()?);
            let lease = i64::from_le_bytes(reader.take()?);
            let length = u32::from_le_bytes(reader.take()?) as usize;
            let (key, value) = reader.0.split_at_checked(length)?;
            Some(Self { deleted: deleted != 0, previous, create_revision, version, lease, key, value })
        })();
        entry.ok_or_else(|| unreadable("log entry"))
    }

    /// The change as the seam shows it; `id` is where it was found.
    pub(super) fn key_value(&self, id: EntryId) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            value: Bytes::copy_from_slice(self.value),
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(id.revision()),
            version: self.version,
            lease: self.lease,
        }
    }
}

/// Takes fixed-size pieces off the front of a record.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*piece)
    }
}

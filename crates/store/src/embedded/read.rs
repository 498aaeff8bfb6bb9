//! Reads in a snapshot: ranges now and in the past, and the changes since a revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::failure::unreadable;
use super::record::{COMPACTED, CURRENT, Entry, EntryId, Head, LAST_LEASE, LOG, META, REVISION};
use crate::{Error, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, WatchBatch, WatchEvent};

/// How many bytes of events a replay takes from the log at once.
const REPLAY_BYTES: usize = 1 << 20;

/// The store's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) last_lease: i64,
}

/// The numbers in this snapshot.
pub(super) fn state(txn: &ReadTransaction) -> Result<State, Error> {
    let meta = txn.open_table(META)?;
    let number = |name| Ok::<_, Error>(meta.get(name)?.ok_or_else(|| unreadable(name))?.value());
    Ok(State { revision: number(REVISION)?, compacted: number(COMPACTED)?, last_lease: number(LAST_LEASE)? })
}

/// Answers a [`RangeRequest`].
pub(super) fn range(txn: &ReadTransaction, request: &RangeRequest) -> Result<RangeResponse, Error> {
    let state = state(txn)?;
    let at = request.at.map_or(0, |at| at.0);
    if at > state.revision {
        return Err(Error::Future(Revision(at)));
    }
    if at > 0 && at < state.compacted {
        return Err(Error::Compacted { requested: Revision(at), oldest: Revision(state.compacted) });
    }
    let log = txn.open_table(LOG)?;
    let mut response =
        RangeResponse { revision: Revision(state.revision), kvs: Vec::new(), more: false, count: 0 };
    if request.range.start >= request.range.end {
        return Ok(response);
    }
    let mut undone = if at > 0 && at < state.revision {
        changed_since(&log, &request.range, at)?.into_iter().peekable()
    } else {
        BTreeMap::new().into_iter().peekable()
    };
    let mut take = |id: EntryId| {
        response.count += 1;
        if request.count_only {
        } else if request.limit == 0 || response.kvs.len() < request.limit {
            response.kvs.push(key_value(&log, id)?);
        } else {
            response.more = true;
        }
        Ok::<_, Error>(())
    };
    let current = txn.open_table(CURRENT)?;
    for item in current.range::<&[u8]>(&*request.range.start..&*request.range.end)? {
        let (key, head) = item?;
        let key = key.value();
        while let Some((_, id)) = undone.next_if(|(undone, _)| **undone < *key) {
            if id.exists() {
                take(id)?;
            }
        }
        match undone.next_if(|(undone, _)| **undone == *key) {
            Some((_, id)) if id.exists() => take(id)?,
            Some(_) => {}
            None => take(Head::decode(head.value())?.entry)?,
        }
    }
    for (_, id) in undone {
        if id.exists() {
            take(id)?;
        }
    }
    Ok(response)
}

/// The keys of `range` that changed after the revision `at`, each with its change as of `at`.
fn changed_since(
    log: &impl ReadableTable<u128, &'static [u8]>,
    range: &KeyRange,
    at: i64,
) -> Result<BTreeMap<Bytes, EntryId>, Error> {
    let mut undone = BTreeMap::new();
    for item in log.range(EntryId::new(at + 1, 0).0..)? {
        let (_, bytes) = item?;
        let entry = Entry::decode(bytes.value())?;
        if range.contains(entry.key) && !undone.contains_key(entry.key) {
            undone.insert(Bytes::copy_from_slice(entry.key), entry.previous);
        }
    }
    Ok(undone)
}

/// The change at `id`, which something points to.
pub(super) fn key_value(
    log: &impl ReadableTable<u128, &'static [u8]>,
    id: EntryId,
) -> Result<KeyValue, Error> {
    let bytes = log.get(id.0)?.ok_or_else(|| unreadable("pointer into the log"))?;
    Ok(Entry::decode(bytes.value())?.key_value(id))
}

/// A part of the log as a watch wants it.
pub(super) struct Replay {
    /// The changes, a batch per revision.
    pub(super) batches: Vec<WatchBatch>,
    /// The first revision that is not in it.
    pub(super) next: i64,
}

/// The changes in `range` from revision `from` on, about a megabyte at most, revisions never cut in two.
pub(super) fn replay(txn: &ReadTransaction, range: &KeyRange, from: i64) -> Result<Replay, Error> {
    let state = state(txn)?;
    if from < state.compacted {
        return Err(Error::Compacted { requested: Revision(from), oldest: Revision(state.compacted) });
    }
    let log = txn.open_table(LOG)?;
    let mut batches = Vec::new();
    let mut events: Vec<WatchEvent> = Vec::new();
    let mut revision = 0;
    let mut bytes_taken = 0;
    for item in log.range(EntryId::new(from, 0).0..)? {
        let (id, bytes) = item?;
        let id = EntryId(id.value());
        if id.revision() != revision {
            close_batch(&mut batches, &mut events, revision);
            if bytes_taken > REPLAY_BYTES {
                return Ok(Replay { batches, next: id.revision() });
            }
            revision = id.revision();
        }
        let entry = Entry::decode(bytes.value())?;
        if range.contains(entry.key) {
            let previous =
                if entry.previous.exists() { Some(key_value(&log, entry.previous)?) } else { None };
            bytes_taken += bytes.value().len() + previous.as_ref().map_or(0, |kv| kv.value.len());
            events.push(WatchEvent { kv: entry.key_value(id), previous, deleted: entry.deleted });
        }
    }
    close_batch(&mut batches, &mut events, revision);
    Ok(Replay { batches, next: (state.revision + 1).max(from) })
}

fn close_batch(batches: &mut Vec<WatchBatch>, events: &mut Vec<WatchEvent>, revision: i64) {
    if !events.is_empty() {
        batches.push(WatchBatch { revision: Revision(revision), events: std::mem::take(events).into() });
    }
}

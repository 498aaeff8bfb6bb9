//! The writer thread: collects what waits, commits it at once, acknowledges, publishes.

use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::apply::Tables;
use super::leases::{Deadlines, now_millis};
use super::read::{self, State};
use super::record::LEASES;
use super::{Options, Shared};
use crate::{Error, Op, Revision, Txn, TxnResponse};

/// How many commands one commit takes at most.
const GROUP: usize = 512;
/// How far past the kept history the store goes before it compacts: the work is done in slices of this size.
const COMPACTION_STEP: i64 = 256;
/// How long after a failed commit a lease that ran out is tried again.
const EXPIRY_RETRY_MILLIS: i64 = 1_000;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Txn {
        txn: Txn,
        reply: Reply<TxnResponse>,
    },
    Compact {
        at: Revision,
        reply: Reply<()>,
    },
    GrantLease {
        ttl_seconds: i64,
        reply: Reply<i64>,
    },
    RevokeLease {
        id: i64,
        reply: Reply<()>,
    },
    /// A lease ran out.
    Expire {
        id: i64,
    },
}

/// An acknowledgement that waits for the commit; told whether that failed.
type Acknowledge = Box<dyn FnOnce(Option<&Error>)>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    options: Options,
    state: State,
    deadlines: Deadlines,
}

/// What a commit may do, by the space that is left: deletions make room, so they may use the last of it.
#[derive(Clone, Copy)]
enum Room {
    All,
    Deletes,
    None,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, options: Options, state: State) -> Result<Self, Error> {
        let mut deadlines = Deadlines::default();
        shared.database.read(|txn| {
            for item in txn.open_table(LEASES)?.range::<i64>(..)? {
                let (id, lease) = item?;
                deadlines.insert(id.value(), lease.value().1);
            }
            Ok(())
        })?;
        Ok(Self { shared, options, state, deadlines })
    }

    /// Serves `queue` until its senders are gone.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Command>) {
        loop {
            let expired = self.deadlines.take_expired(now_millis());
            let mut group: Vec<Command> = expired.iter().map(|&id| Command::Expire { id }).collect();
            if group.is_empty() {
                let first = match self.deadlines.sleep(now_millis()) {
                    Some(sleep) => queue.recv_timeout(sleep),
                    None => queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                };
                match first {
                    Ok(command) => group.push(command),
                    Err(mpsc::RecvTimeoutError::Timeout) => continue,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
            group.extend(queue.try_iter().take(GROUP));
            if !self.commit(group) {
                let later = now_millis() + EXPIRY_RETRY_MILLIS;
                expired.into_iter().for_each(|id| self.deadlines.insert(id, later));
            }
        }
    }

    /// One group: all of it becomes durable, or none. False when it failed.
    fn commit(&mut self, group: Vec<Command>) -> bool {
        let room = self.room(&group);
        let (group, refused): (Vec<_>, Vec<_>) = group.into_iter().partition(|command| match room {
            Room::All => true,
            Room::Deletes => !command.grows(),
            Room::None => false,
        });
        let expiry_refused = refused.iter().any(|command| matches!(command, Command::Expire { .. }));
        for command in refused {
            command.refuse(&Error::Full { directory: self.shared.directory.clone() });
        }
        if group.is_empty() {
            return !expiry_refused;
        }
        let mut acknowledgements = Vec::with_capacity(group.len());
        let result = self.try_commit(group, &mut acknowledgements);
        if let Err(error) = &result {
            tracing::error!(error = %chain(error), "a commit of the store failed");
        }
        // Before anybody hears of it: who is told that a write failed may read at once.
        if result.is_err() {
            self.recover();
        }
        for acknowledge in acknowledgements {
            acknowledge(result.as_ref().err());
        }
        result.is_ok()
    }

    fn try_commit(
        &mut self,
        group: Vec<Command>,
        acknowledgements: &mut Vec<Acknowledge>,
    ) -> Result<(), Error> {
        let begun = self.shared.database.begin_write();
        let txn = match begun {
            Ok(txn) => txn,
            Err(error) => {
                acknowledgements.extend(group.into_iter().map(Command::refuse_later));
                return Err(error);
            }
        };
        let mut tables = Tables::open(&txn, self.state)?;
        let mut failure = None;
        for command in group {
            if failure.is_some() {
                acknowledgements.push(command.refuse_later());
            } else if let Err(error) = command.apply(&mut tables, &mut self.deadlines, acknowledgements) {
                failure = Some(error);
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let oldest = tables.state.revision - self.options.history;
        if oldest - tables.state.compacted > COMPACTION_STEP {
            tables.compact(Revision((tables.state.compacted + 2 * COMPACTION_STEP).min(oldest)))?;
        }
        let (state, batches, changed) = tables.finish()?;
        if changed {
            txn.commit()?;
            self.state = state;
            self.shared.hub.publish(&batches);
        } else {
            txn.abort()?;
        }
        Ok(())
    }

    /// What the file system has room for.
    fn room(&self, group: &[Command]) -> Room {
        if self.options.reserve_bytes == 0 {
            return Room::All;
        }
        let Ok(status) = rustix::fs::statvfs(&self.shared.directory) else { return Room::All };
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        let wanted: u64 = group.iter().map(Command::bytes).sum();
        if free >= self.options.reserve_bytes.saturating_add(4 * wanted) {
            Room::All
        } else if free >= self.options.reserve_bytes / 8 {
            Room::Deletes
        } else {
            Room::None
        }
    }

    /// Takes redb back to its last commit after a failed one.
    fn recover(&mut self) {
        let recovered = self.shared.database.reopen().and_then(|()| self.shared.database.read(read::state));
        match recovered {
            Ok(state) => {
                // The failed commit may have reached the disk after all: then the watches read it there.
                self.shared.hub.rewind(state.revision);
                self.state = state;
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the store cannot be opened again");
            }
        }
    }
}

impl Command {
    /// Whether it makes the store larger.
    fn grows(&self) -> bool {
        match self {
            Self::Txn { txn, .. } => txn.then.iter().any(|op| matches!(op, Op::Put { .. })),
            Self::GrantLease { .. } => true,
            Self::Compact { .. } | Self::RevokeLease { .. } | Self::Expire { .. } => false,
        }
    }

    fn bytes(&self) -> u64 {
        let Self::Txn { txn, .. } = self else { return 0 };
        let size = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        };
        txn.then.iter().map(size).sum::<usize>() as u64
    }

    /// [`Command::refuse`], once the failure has been dealt with.
    fn refuse_later(self) -> Acknowledge {
        Box::new(move |error| self.refuse(error.unwrap_or(&Error::Closed)))
    }

    /// Answers with an error without trying.
    fn refuse(self, error: &Error) {
        match self {
            Self::Txn { reply, .. } => drop(reply.send(Err(error.again()))),
            Self::Compact { reply, .. } | Self::RevokeLease { reply, .. } => {
                drop(reply.send(Err(error.again())))
            }
            Self::GrantLease { reply, .. } => drop(reply.send(Err(error.again()))),
            Self::Expire { .. } => {}
        }
    }

    /// Applies the command; its answer waits for the commit. An error is the database's, not the request's.
    fn apply(
        self,
        tables: &mut Tables<'_>,
        deadlines: &mut Deadlines,
        acknowledgements: &mut Vec<Acknowledge>,
    ) -> Result<(), Error> {
        match self {
            Self::Txn { txn, reply } => answer(tables.transact(&txn), reply, acknowledgements),
            Self::Compact { at, reply } => answer(tables.compact(at), reply, acknowledgements),
            Self::GrantLease { ttl_seconds, reply } => {
                let deadline = now_millis().saturating_add(ttl_seconds.max(1).saturating_mul(1000));
                let granted = tables.grant_lease(ttl_seconds, deadline);
                if let Ok(id) = granted {
                    deadlines.insert(id, deadline);
                }
                answer(granted, reply, acknowledgements)
            }
            Self::RevokeLease { id, reply } => answer(tables.revoke_lease(id), reply, acknowledgements),
            Self::Expire { id } => match tables.revoke_lease(id) {
                Ok(()) | Err(Error::LeaseNotFound(_)) => Ok(()),
                Err(error) => Err(error),
            },
        }
    }
}

/// Keeps an answer until the commit is durable. The database's own failure ends the commit and is every one's answer.
fn answer<T: 'static>(
    result: Result<T, Error>,
    reply: Reply<T>,
    acknowledgements: &mut Vec<Acknowledge>,
) -> Result<(), Error> {
    let failure = match &result {
        Err(error @ Error::Embedded { .. }) => Some(error.again()),
        _ => None,
    };
    acknowledgements.push(Box::new(move |failed| {
        let answer = match failed {
            Some(error) => Err(error.again()),
            None => result,
        };
        let _nobody_waits_any_more = reply.send(answer);
    }));
    failure.map_or(Ok(()), Err)
}

/// An error with its causes, for the log.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

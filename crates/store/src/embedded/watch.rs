//! A watch: first from the log, then live, and back to the log whenever it lags.
//!
//! It is a state machine that only moves when it is polled; there is no task behind it. No change is lost or
//! repeated at the switch, because `next` decides alone what is still to be delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;

use super::hub::Subscription;
use super::{Shared, blocking, read};
use crate::{Error, KeyRange, Revision, Watch, WatchBatch};

struct Watcher {
    shared: Arc<Shared>,
    range: KeyRange,
    /// The first revision that was not delivered.
    next: i64,
    /// What was read from the log and waits to be taken.
    pending: VecDeque<WatchBatch>,
    source: Source,
}

/// Where the next change comes from.
enum Source {
    /// The log, up to its end; then live.
    Log,
    /// The writer; the queue ends when the watch lagged or the store closed. Then the log decides.
    Live(mpsc::Receiver<WatchBatch>),
    /// An error was delivered: nothing follows.
    Ended,
}

/// Opens a watch of `range` from the revision `from` on, or from now on.
pub(super) fn open(shared: Arc<Shared>, range: KeyRange, from: Option<Revision>) -> Watch {
    // Zero is etcd's way of saying "from now on".
    let from = from.filter(|from| from.0 > 0);
    let next = from.map_or_else(|| shared.hub.revision().0 + 1, |from| from.0);
    let mark = WatchBatch { revision: Revision(next - 1), events: [].into() };
    let mut source = Source::Log;
    if from.is_none()
        && let Subscription::Live(queue) = shared.hub.subscribe(&range, next)
    {
        source = Source::Live(queue);
    }
    let watcher = Watcher { shared, range, next, pending: [mark].into(), source };
    futures::stream::unfold(watcher, |mut watcher| async move {
        let item = watcher.step().await?;
        Some((item, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn step(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            if let Some(batch) = self.pending.pop_front() {
                return Some(Ok(batch));
            }
            match &mut self.source {
                Source::Ended => return None,
                Source::Live(queue) => match queue.recv().await {
                    // Published after it was read from the log already.
                    Some(batch) if batch.revision.0 < self.next => {}
                    Some(batch) => {
                        self.next = batch.revision.0 + 1;
                        return Some(Ok(batch));
                    }
                    None => self.source = Source::Log,
                },
                Source::Log => match self.shared.hub.subscribe(&self.range, self.next) {
                    Subscription::Live(queue) => self.source = Source::Live(queue),
                    Subscription::Closed => {
                        self.source = Source::Ended;
                        return Some(Err(Error::Closed));
                    }
                    Subscription::Behind => {
                        if let Err(error) = self.replay().await {
                            self.source = Source::Ended;
                            return Some(Err(error));
                        }
                    }
                },
            }
        }
    }

    async fn replay(&mut self) -> Result<(), Error> {
        let (shared, range, from) = (self.shared.clone(), self.range.clone(), self.next);
        let replay = blocking(move || shared.database.read(|txn| read::replay(txn, &range, from))).await?;
        self.next = replay.next;
        self.pending = replay.batches.into();
        Ok(())
    }
}

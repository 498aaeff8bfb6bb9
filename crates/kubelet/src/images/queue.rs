//! Who pulls next: at most N pulls at a time, and registries take turns, so that twenty pods waiting for one
//! slow registry do not hold up the one that waits for another (IMG-42, IMG-43).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Slots for pulls. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PullQueue {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Registries with somebody waiting, in the order of their turns.
    turns: VecDeque<Line>,
}

/// Those who wait for one registry, first come first served.
#[derive(Debug)]
struct Line {
    registry: String,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to pull; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Slot {
    /// `None` once the right was handed on.
    state: Option<Arc<Mutex<State>>>,
}

impl PullQueue {
    pub(crate) fn new(parallel: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { free: parallel.max(1), turns: VecDeque::new() })) }
    }

    /// Waits for a slot to pull from `registry`. Giving up (dropping the future) loses the place only.
    pub(crate) async fn slot(&self, registry: &str) -> Slot {
        loop {
            let turn = {
                let mut state = lock(&self.state);
                if state.free > 0 {
                    state.free -= 1;
                    return Slot { state: Some(Arc::clone(&self.state)) };
                }
                let (send, turn) = oneshot::channel();
                match state.turns.iter_mut().find(|line| line.registry == registry) {
                    Some(line) => line.waiting.push_back(send),
                    None => {
                        let line = Line { registry: registry.to_owned(), waiting: VecDeque::from([send]) };
                        state.turns.push_back(line);
                    }
                }
                turn
            };
            if let Ok(slot) = turn.await {
                return slot;
            }
        }
    }
}

impl State {
    /// The next one who waits, registries taking turns.
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        let mut line = self.turns.pop_front()?;
        let next = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            self.turns.push_back(line);
        }
        next
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut right = self.state.take();
        while let Some(state) = right.take() {
            let next = {
                let mut state = lock(&state);
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            if let Some(next) = next
                && let Err(mut unwanted) = next.send(Slot { state: Some(state) })
            {
                // Whoever waited gave up: the right goes on to the next one.
                right = unwanted.state.take();
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn order(parallel: usize, registries: &[&'static str]) -> Vec<(u64, &'static str)> {
        let queue = PullQueue::new(parallel);
        let began = tokio::time::Instant::now();
        let done: Arc<Mutex<Vec<(u64, &'static str)>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for registry in registries.iter().copied() {
            let (queue, done) = (queue.clone(), Arc::clone(&done));
            tasks.spawn(async move {
                let _slot = queue.slot(registry).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((began.elapsed().as_secs(), registry));
            });
            tokio::task::yield_now().await;
        }
        tasks.join_all().await;
        let done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn img_42_serial_pulls_come_one_after_another() {
        let seconds: Vec<u64> = order(1, &["a", "a", "a"]).await.into_iter().map(|(at, _)| at).collect();
        assert_eq!(seconds, [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn img_43_at_most_n_pulls_and_registries_take_turns() {
        let done = order(2, &["slow", "slow", "slow", "slow", "other"]).await;
        assert_eq!(done[0..2], [(1, "slow"), (1, "slow")]);
        // The one that waits for another registry came last and is not last.
        assert!(done[2..4].contains(&(2, "other")), "{done:?}");
        assert_eq!(done[4], (3, "slow"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_holds_nobody_up() {
        let queue = PullQueue::new(1);
        let first = queue.slot("a").await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), queue.slot("a")).await;
        assert!(waiting.is_err());
        drop(first);
        let second = tokio::time::timeout(Duration::from_secs(1), queue.slot("a")).await;
        assert!(second.is_ok());
    }
}

//! Answers of others, for as long as they hold; bounded, because names are chosen by whoever asks.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{Duration, Instant};

use super::{Outcome, Question};

/// No answer is kept longer, in seconds: names of the outside change too.
pub(super) const LONGEST: u32 = 300;
/// The same for answers without records.
pub(super) const LONGEST_NEGATIVE: u32 = 30;
/// How many answers are kept, and of how many records at most.
const MOST: usize = 4096;
const LARGEST: usize = 64;

#[derive(Default)]
pub(super) struct Cache(HashMap<Question, Cached>);

struct Cached {
    outcome: Arc<Outcome>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// An answer and its age in seconds.
    pub(super) fn get(&mut self, question: &Question) -> Option<(Arc<Outcome>, u32)> {
        let now = Instant::now();
        let cached = self.0.get(question)?;
        if cached.until <= now {
            self.0.remove(question);
            return None;
        }
        let age = u32::try_from(now.duration_since(cached.since).as_secs()).unwrap_or(u32::MAX);
        Some((cached.outcome.clone(), age))
    }

    pub(super) fn put(&mut self, question: Question, outcome: Arc<Outcome>) {
        let lifetime = outcome.lifetime();
        if lifetime == 0 || outcome.records() > LARGEST {
            return;
        }
        let now = Instant::now();
        if self.0.len() >= MOST {
            self.0.retain(|_, cached| cached.until > now);
        }
        if self.0.len() >= MOST {
            // A hash map's order is as good as chance.
            let mut keep = false;
            self.0.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        let until = now + Duration::from_secs(lifetime.into());
        self.0.insert(question, Cached { outcome, since: now, until });
    }
}

//! The one grace period of a stop, in whole seconds: hook, other containers' turns and the wait after the stop
//! signal all live on it (HOOK-24 to HOOK-27). A second deletion may make it shorter while it runs (POD-32).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A container gets at least this long between signal and SIGKILL, in seconds (HOOK-27).
const MINIMUM: i64 = 2;
/// Longer than any pod lives, and still an instant that can be computed.
const MAXIMUM: i64 = 10 * 365 * 24 * 3600;

/// A grace period that has begun. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    began: Instant,
    grace: watch::Receiver<i64>,
}

impl Budget {
    /// A grace period that began at `began` and stays as it is.
    pub(super) fn fixed(began: Instant, grace: i64) -> Self {
        Self::shrinking(began, grace).1
    }

    /// A grace period that began at `began`, and what makes it shorter.
    pub(super) fn shrinking(began: Instant, grace: i64) -> (watch::Sender<i64>, Self) {
        let (sender, receiver) = watch::channel(grace);
        (sender, Self { began, grace: receiver })
    }

    /// The whole period in seconds.
    pub(super) fn grace(&self) -> i64 {
        (*self.grace.borrow()).clamp(0, MAXIMUM)
    }

    /// What is left for the wait after a stop signal that was sent `signalled` ago, in seconds: whole seconds that
    /// were used are gone (HOOK-25), the minimum is not.
    pub(super) fn left_for_signal(&self, signalled: Duration) -> i64 {
        let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(MAXIMUM);
        (self.grace() - whole(self.began.elapsed())).max(MINIMUM - whole(signalled)).max(0)
    }

    /// What is left, in whole seconds.
    pub(super) fn left(&self) -> i64 {
        (self.grace() - i64::try_from(self.began.elapsed().as_secs()).unwrap_or(MAXIMUM)).max(0)
    }

    /// Resolves at the end of the period, also of one that becomes shorter meanwhile.
    pub(super) async fn over(&mut self) {
        loop {
            let end = self.began + Duration::from_secs(self.grace().unsigned_abs());
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = self.shortened() => {}
            }
        }
    }

    /// Resolves when the period has become shorter.
    pub(super) async fn shortened(&mut self) {
        if self.grace.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hook_25_27_whole_seconds_count_and_two_are_always_left() {
        let budget = Budget::fixed(Instant::now(), 30);
        tokio::time::advance(Duration::from_millis(1_900)).await;
        assert_eq!(budget.left_for_signal(Duration::ZERO), 29);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(budget.left_for_signal(Duration::ZERO), 2);
        assert_eq!(budget.left_for_signal(Duration::from_millis(1_500)), 1);
        assert_eq!(budget.left_for_signal(Duration::from_secs(50)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pod_32_a_shorter_period_ends_a_wait_that_has_begun() {
        let began = Instant::now();
        let (shorten, mut budget) = Budget::shrinking(began, 300);
        let wait = tokio::spawn(async move { budget.over().await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(shorten.send(10).is_ok());
        assert!(wait.await.is_ok());
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_grace_period_is_one() {
        let mut budget = Budget::fixed(Instant::now(), i64::MAX);
        assert_eq!(budget.left(), MAXIMUM);
        assert!(tokio::time::timeout(Duration::from_secs(3_600), budget.over()).await.is_err());
    }
}

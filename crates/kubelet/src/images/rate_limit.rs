//! `registryPullQPS` and `registryBurst`: a pull over the limit fails at once, it does not wait (IMG-44).

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The error of a pull over the limit.
pub(crate) const EXCEEDED: &str = "pull QPS exceeded";

/// A token bucket.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: f64,
    burst: f64,
    bucket: Mutex<(f64, Instant)>,
}

impl RateLimit {
    /// `qps` of 0 is no limit.
    pub(crate) fn new(qps: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(qps), burst, bucket: Mutex::new((burst, Instant::now())) }
    }

    /// Takes a token if there is one.
    pub(crate) fn try_take(&self) -> bool {
        if self.per_second <= 0.0 {
            return true;
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (tokens, at) = *bucket;
        let tokens = (tokens + now.duration_since(at).as_secs_f64() * self.per_second).min(self.burst);
        let taken = tokens >= 1.0;
        *bucket = (if taken { tokens - 1.0 } else { tokens }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn img_44_five_a_second_after_ten_at_once() {
        let limit = RateLimit::new(5, 10);
        assert_eq!((0..20).filter(|_| limit.try_take()).count(), 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..20).filter(|_| limit.try_take()).count(), 5);
        let off = RateLimit::new(0, 1);
        assert!((0..100).all(|_| off.try_take()));
    }
}

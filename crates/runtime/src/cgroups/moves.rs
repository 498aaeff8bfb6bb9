//! Moving processes into cgroups without waiting for the kernel.
//!
//! A process that is moved makes the kernel stop all forks for a moment, and the first such moment after a quiet time
//! begins with a grace period of RCU (`cgroup_threadgroup_rwsem`): 5 to 10 ms, and a container's start has several of
//! them. Those that come soon after one do not wait. So while a container is being made, a thread of this process is moved
//! to where it is, every few milliseconds: the grace period passes beside all the other work. (A hierarchy mounted with
//! `favordynmods` is always in that state, at the expense of every fork on the machine.)

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Cgroups;

/// Between two moves: well below a grace period.
const PAUSE: Duration = Duration::from_millis(3);
/// From a request to the processes that it moves, on a machine with nothing else to do.
const SOON: Duration = Duration::from_millis(30);

/// Keeps the kernel ready for processes that are to be moved; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    cgroups: Cgroups,
    /// Until when; none while nothing is expected.
    until: Arc<Mutex<Option<Instant>>>,
}

impl Moves {
    pub(crate) fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, until: Arc::default() }
    }

    /// Processes will be moved soon.
    pub(crate) fn expect(&self) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let before = until.replace(Instant::now() + SOON);
        drop(until);
        if before.is_none() {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.keep_ready());
        }
    }

    fn keep_ready(&self) {
        while self.goes_on() {
            // Where this is not allowed, everything works as well, only later.
            let _ = self.move_to_where_it_is();
            std::thread::sleep(PAUSE);
        }
    }

    /// Moves this thread alone: the process has dozens.
    fn move_to_where_it_is(&self) -> io::Result<()> {
        let own = fs::read_to_string("/proc/thread-self/cgroup")?;
        let Some(directory) = own.lines().find_map(|line| self.cgroups.directory_of(line)) else {
            return Ok(());
        };
        let thread = rustix::thread::gettid().to_string();
        // v2 has the first of these files, v1 the second.
        fs::write(directory.join("cgroup.threads"), &thread)
            .or_else(|_| fs::write(directory.join("tasks"), &thread))
    }

    /// Whether something is still expected.
    fn goes_on(&self) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|end| end <= Instant::now()) {
            *until = None;
        }
        until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_when_nothing_is_expected_any_more() {
        let moves = Moves::new(Cgroups::detect());
        moves.expect();
        moves.expect();
        assert!(moves.goes_on());
        let began = Instant::now();
        while moves.goes_on() {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn the_thread_stays_where_it_is() {
        let own = || fs::read_to_string("/proc/thread-self/cgroup").expect("the cgroups of this thread");
        let before = own();
        Moves::new(Cgroups::detect()).move_to_where_it_is().expect("it may move itself (tests run as root)");
        assert_eq!(own(), before);
    }
}

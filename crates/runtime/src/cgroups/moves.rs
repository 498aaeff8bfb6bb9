//! Moving processes into cgroups without waiting for the kernel.
//!
//! A process that is moved makes the kernel stop all forks for a moment, and the first such moment after a quiet time
//! begins with a grace period of RCU (`cgroup_threadgroup_rwsem`): 5 to 10 ms, and a container's start has several of
//! them. Those that come soon after one do not wait. So while a container is being made, this process is moved to
//! where it is, every other millisecond: the grace period passes beside all the other work. (A hierarchy mounted with
//! `favordynmods` is always in that state, at the expense of every fork on the machine.)

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Cgroups;

/// Between two moves: well below a grace period.
const PAUSE: Duration = Duration::from_millis(2);
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

    fn move_to_where_it_is(&self) -> io::Result<()> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        match own.lines().find_map(|line| self.cgroups.directory_of(line)) {
            Some(directory) => fs::write(directory.join("cgroup.procs"), std::process::id().to_string()),
            None => Ok(()),
        }
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
    fn this_process_stays_where_it_is() {
        let own = || fs::read_to_string("/proc/self/cgroup").expect("the cgroups of this process");
        let before = own();
        let _ = Moves::new(Cgroups::detect()).move_to_where_it_is();
        assert_eq!(own(), before);
    }
}

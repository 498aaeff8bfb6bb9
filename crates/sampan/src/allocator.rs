//! What the C library's allocator keeps of freed memory, bounded.
//!
//! It gives each thread that comes in each other's way an arena of its own, and never gives back what lies between
//! things still in use. A burst of pods starts dozens of threads for blocking work, so a daemon that has been busy
//! once would hold several times what it uses. Two arenas are enough for two workers, and what a burst leaves is
//! given back soon after it.
#![allow(unsafe_code)]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Arenas: as many as there are workers of the async runtime.
const ARENAS: i32 = 2;
/// How often is looked whether there may be something to give back.
const LOOK: Duration = Duration::from_secs(2);
/// After this much work of all threads there is: about a dozen pods. An idle daemon takes minutes for it.
const WORK: Duration = Duration::from_millis(250);

/// Bounds the arenas. Before any thread exists.
pub(crate) fn few_arenas() {
    // SAFETY: takes two integers; one that the library does not know changes nothing.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Gives back what is free whenever the process has worked; for as long as it runs.
pub(crate) async fn give_back() {
    let mut looks = tokio::time::interval(LOOK);
    let mut before = work();
    loop {
        looks.tick().await;
        if work().saturating_sub(before) >= WORK {
            // SAFETY: takes an integer and locks what it needs; milliseconds for a hundred megabytes.
            unsafe { libc::malloc_trim(0) };
            before = work();
        }
    }
}

/// Processor time of all threads since the start.
fn work() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

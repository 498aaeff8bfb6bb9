//! How a person or a service manager ends this process.

use std::time::{Duration, Instant};

use rustix::process::{getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What asks twice within this time asked once: `timeout` signals its child and then the child's group, a terminal
/// and a wrapper both pass on Ctrl-C.
const ONCE: Duration = Duration::from_secs(1);

/// Waits for SIGTERM or SIGINT. After that another one ends the process at once, as SIGKILL does: what has not
/// stopped by then goes on in the care of its shims.
pub(super) async fn termination() {
    let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    // Without handlers the signals end the process, as by default.
    let (Ok(term), Ok(int)) = (term, int) else { return std::future::pending().await };
    let mut signals = Signals { term, int };
    signals.next().await;
    let asked = Instant::now();
    tokio::spawn(async move {
        loop {
            signals.next().await;
            if asked.elapsed() >= ONCE {
                tracing::warn!("asked to stop once more: leaving at once; pods that have not ended go on");
                let _ = kill_process(getpid(), rustix::process::Signal::KILL);
            }
        }
    });
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

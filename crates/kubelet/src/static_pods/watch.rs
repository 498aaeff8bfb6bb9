//! Tells when something in the manifest directory changes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Editors write in several steps: a change counts when it has been quiet this long.
const QUIET: Duration = Duration::from_millis(50);

/// Changes of a directory or file; without inotify there are none, and the regular reading has to do.
pub(super) struct Changes(Option<AsyncFd<OwnedFd>>);

impl Changes {
    pub(super) fn of(path: &Path) -> Self {
        let open = || -> std::io::Result<AsyncFd<OwnedFd>> {
            let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            use inotify::WatchFlags as On;
            let events =
                On::CLOSE_WRITE | On::MOVED_TO | On::MOVED_FROM | On::DELETE | On::ATTRIB | On::CREATE;
            inotify::add_watch(&watch, path, events)?;
            #[expect(
                deprecated,
                reason = "its replacement is unsafe; this one owns the descriptor that it watches"
            )]
            AsyncFd::new(watch)
        };
        match open() {
            Ok(watch) => Self(Some(watch)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "changes of the static pods are only seen at each reading");
                Self(None)
            }
        }
    }

    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        let Some(watch) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = watch.readable().await else { return std::future::pending().await };
            tokio::time::sleep(QUIET).await;
            let mut buffer = [0; 4_096];
            let mut any = false;
            while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {
                any = true;
            }
            ready.clear_ready();
            if any {
                return;
            }
        }
    }
}

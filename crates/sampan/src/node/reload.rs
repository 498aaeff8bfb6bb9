//! The configuration file's `runtime` section, read again when the file changes: handlers come and go without a
//! restart. Everything else in the file needs one, and a file with a mistake changes nothing.

use std::{os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use sampan_runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigFile, RuntimeOptions};

/// How often the file is looked at (a stat; editors and configuration management replace files in many ways, and
/// all of them show here).
const LOOK: Duration = Duration::from_secs(1);

/// Follows the file until `shutdown`.
pub(super) async fn follow(
    file: ConfigFile,
    mut current: RuntimeOptions,
    runtime: Arc<Runtime>,
    shutdown: CancellationToken,
) {
    let version = || {
        std::fs::metadata(&file.path)
            .ok()
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
    };
    let mut seen = version();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = version();
        // A file that is gone is being replaced, or was taken away: what it said holds.
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        let read = (file.handlers)(&file.path).and_then(|options| {
            let ((default, handlers), platforms) = (options.handlers()?, options.platforms()?);
            if options != current {
                runtime.set_handlers(default, handlers, platforms)?;
                tracing::info!(path = %file.path.display(), "runtime handlers read again");
            }
            Ok(options)
        });
        match read {
            Ok(options) => current = options,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the configuration file is not used: the handlers stay as they are");
            }
        }
    }
}

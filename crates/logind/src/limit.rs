//! Making logind wait long enough: its limit is configured in a file, which it reads again when it is told to.

use std::fs;
use std::time::Duration;

use crate::{Error, Logind};

/// The file's name is the one that upstream's kubelet writes: who looks for it knows it.
const FILE: &str = "99-kubelet.conf";
/// How often, and how far apart, logind is asked whether it has read the file.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

impl Logind {
    /// Sees to it that a lock can delay a shutdown for `wanted`: raises logind's limit when it is lower.
    ///
    /// # Errors
    /// [`Error::Limit`] when it stays lower.
    pub async fn ensure_delay(&self, wanted: Duration) -> Result<(), Error> {
        if self.delay_limit().await? >= wanted {
            return Ok(());
        }
        self.write_override(wanted)?;
        // SIGHUP; systemd delivers it some time later.
        let (service, object) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1");
        let arguments = ("systemd-logind.service", "all", 1i32);
        self.call(service, object, "org.freedesktop.systemd1.Manager", "KillUnit", &arguments).await?;
        let mut is = Duration::ZERO;
        for _ in 0..LOOKS {
            is = self.delay_limit().await?;
            if is >= wanted {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Limit { wanted, is })
    }

    fn write_override(&self, wanted: Duration) -> Result<(), Error> {
        let path = self.conf_dir.join(FILE);
        let seconds = wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0);
        let text = format!(
            "# Written for the kubelet's shutdownGracePeriod.\n[Login]\nInhibitDelayMaxSec={seconds}\n"
        );
        fs::create_dir_all(&self.conf_dir)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| Error::Write { path, source })
    }
}

//! Errors, where runc puts them: as JSON lines in the `--log` file and as text on stderr; and what
//! libcontainer says on the way to one, which names the cause that its error values leave out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::json;

/// Where errors go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    /// `--log`
    pub(crate) log: Option<PathBuf>,
    /// `--log-format json`
    pub(crate) json: bool,
}

impl Journal {
    /// Records the error that the command ends with.
    pub(crate) fn error(&self, message: &str) {
        let _ = writeln!(std::io::stderr(), "{message}");
        let Some(path) = &self.log else { return };
        let time = jiff_now();
        let line = if self.json {
            json!({"level": "error", "msg": message, "time": time}).to_string()
        } else {
            format!("time=\"{time}\" level=error msg={message:?}")
        };
        let _ = append(path, &line);
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")
}

/// Seconds since the epoch say enough; nothing parses this.
fn jiff_now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or_else(|_| "0".into(), |since| since.as_secs().to_string())
}

/// What libcontainer reported, in this process and in those it cloned: they share the file.
#[derive(Debug)]
pub(crate) struct Whispers(Option<File>);

/// Starts to listen to libcontainer.
pub(crate) fn listen() -> Whispers {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::memfd_create("sampan-oci", flags) else {
        return Whispers(None);
    };
    let file = File::from(fd);
    if let Ok(writer) = file.try_clone() {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .without_time()
            .with_target(false)
            .with_level(false)
            .with_ansi(false)
            .with_writer(Mutex::new(writer))
            .finish();
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    Whispers(Some(file))
}

impl Whispers {
    /// The first thing that went wrong: the one nearest to the cause.
    pub(crate) fn cause(&mut self) -> Option<String> {
        let file = self.0.as_mut()?;
        file.seek(SeekFrom::Start(0)).ok()?;
        let mut text = String::new();
        file.take(16 << 10).read_to_string(&mut text).ok()?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

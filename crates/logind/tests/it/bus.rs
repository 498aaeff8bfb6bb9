//! A D-Bus daemon of one test, and on it what a node knows of systemd: logind's locks, limit and signal, and the call
//! that makes it read its files again. The daemon is the real one, since what matters (descriptors that are passed and
//! closed) is its work as well.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zbus::Connection;
use zbus::fdo;
use zbus::zvariant::OwnedFd;

/// A lock that was given out: its words, and the end of a pipe that tells when the other one is closed.
struct Given {
    words: String,
    end: std::io::PipeReader,
}

#[derive(Default)]
struct State {
    limit: Duration,
    given: Vec<Given>,
    /// The file that logind reads when it is told to.
    conf: Option<PathBuf>,
}

type Shared = Arc<Mutex<State>>;

struct Login1(Shared);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Login1 {
    fn inhibit(&self, what: &str, who: &str, _why: &str, mode: &str) -> fdo::Result<OwnedFd> {
        let (end, lock) = std::io::pipe().map_err(|e| fdo::Error::Failed(e.to_string()))?;
        self.0.lock().unwrap().given.push(Given { words: format!("{what} {who} {mode}"), end });
        Ok(std::os::fd::OwnedFd::from(lock).into())
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max_usec(&self) -> u64 {
        u64::try_from(self.0.lock().unwrap().limit.as_micros()).unwrap()
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        start: bool,
    ) -> zbus::Result<()>;
}

struct Systemd1(Shared);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd1 {
    fn kill_unit(&self, unit: &str, who: &str, signal: i32) {
        assert_eq!((unit, who, signal), ("systemd-logind.service", "all", 1));
        let mut state = self.0.lock().unwrap();
        let text = state.conf.as_ref().map(|conf| std::fs::read_to_string(conf).unwrap()).unwrap_or_default();
        let seconds = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec="));
        if let Some(seconds) = seconds {
            state.limit = Duration::from_secs(seconds.parse().unwrap());
        }
    }
}

/// See the module.
pub(crate) struct Bus {
    daemon: Child,
    address: String,
    connection: Connection,
    state: Shared,
    _dir: tempfile::TempDir,
}

impl Bus {
    /// A bus whose logind delays a shutdown by `limit` at most.
    pub(crate) async fn start(limit: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("smpt-bus-").tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        std::fs::write(
            &config,
            format!(
                "<busconfig><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
                dir.path().display()
            ),
        )
        .unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed by `cargo xtask setup`");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let state = Shared::new(Mutex::new(State { limit, ..State::default() }));
        let connection = zbus::connection::Builder::address(address.as_str())
            .unwrap()
            .serve_at("/org/freedesktop/login1", Login1(Arc::clone(&state)))
            .unwrap()
            .serve_at("/org/freedesktop/systemd1", Systemd1(Arc::clone(&state)))
            .unwrap()
            .name("org.freedesktop.login1")
            .unwrap()
            .name("org.freedesktop.systemd1")
            .unwrap()
            .build()
            .await
            .unwrap();
        Self { daemon, address, connection, state, _dir: dir }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The file that is read from now on.
    pub(crate) fn read_configuration_from(&self, file: &Path) {
        self.state.lock().unwrap().conf = Some(file.to_owned());
    }

    /// Says that the machine goes down, or does not after all.
    pub(crate) async fn prepare_for_shutdown(&self, start: bool) {
        let server = self.connection.object_server();
        let object = server.interface::<_, Login1>("/org/freedesktop/login1").await.unwrap();
        Login1::prepare_for_shutdown(object.signal_emitter(), start).await.unwrap();
    }

    /// The words of the locks that are held.
    pub(crate) fn locks(&self) -> Vec<String> {
        let mut state = self.state.lock().unwrap();
        // Nothing is ever written: a pipe that can be read has been closed.
        state.given.retain(|given| {
            let mut ends = [PollFd::new(&given.end, PollFlags::IN)];
            poll(&mut ends, Some(&Timespec::default())).unwrap() == 0
        });
        state.given.iter().map(|given| given.words.clone()).collect()
    }

    /// Waits until nobody holds a lock.
    pub(crate) async fn released(&self) {
        while !self.locks().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

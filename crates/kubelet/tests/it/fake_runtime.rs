//! A runtime in which nothing runs: containers follow a script on the paused clock.

mod cri;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sampan_cri::progress::WatchResponse;
use sampan_cri::v1;
use sampan_kubelet::clock::Clock;
use tokio::sync::broadcast;
use tonic::Status;

/// What a container does once it is started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    /// Runs until it is stopped; ends with this code.
    Runs(i32),
    /// Runs until it is killed: the stop signal does nothing.
    Stubborn,
    /// Runs until it is stopped, which fails until this second.
    Unkillable(i64),
    /// Ends by itself after this time.
    Ends(Duration, i32),
    /// Cannot be started.
    FailsToStart,
}

#[derive(Default)]
struct Inner {
    sandboxes: BTreeMap<String, v1::PodSandboxStatus>,
    containers: BTreeMap<String, (v1::ContainerStatus, String, Script)>,
    scripts: HashMap<String, VecDeque<Script>>,
    pulls: VecDeque<Result<(), Status>>,
    images: Vec<String>,
    image_status_error: Option<Status>,
    image_disk: Option<String>,
    pull_takes: Duration,
    progress: Vec<WatchResponse>,
    /// The only user who may pull, and what the others are told.
    private: Option<(String, Status)>,
    /// `user:password` of each pull.
    logins: Vec<String>,
    /// Whom pulls would ask first.
    mirrors: Vec<String>,
    /// `host user:password` for mirrors, of the last pull.
    mirror_logins: Vec<String>,
    exec: HashMap<String, (i32, Duration)>,
    streaming_url: Option<String>,
    pod_ip: Option<String>,
    /// Bytes in use, by container.
    memory: HashMap<String, u64>,
    update_error: Option<Status>,
    /// What the next sandboxes fail with.
    sandbox_errors: VecDeque<Status>,
    handlers: Vec<String>,
    next: u32,
}

/// Shared by the test and the kubelet.
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    inner: Arc<Mutex<Inner>>,
    /// Calls that change something, with their subject and the second they came at.
    pub(crate) calls: Arc<Mutex<Vec<(i64, String)>>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    clock: Clock,
    began: tokio::time::Instant,
    log_dir: PathBuf,
}

impl FakeRuntime {
    pub(crate) fn new(clock: Clock, log_dir: PathBuf) -> Self {
        let inner = Inner { images: vec!["local:1".to_owned()], ..Inner::default() };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            calls: Arc::default(),
            events: broadcast::Sender::new(1_000),
            began: tokio::time::Instant::now(),
            clock,
            log_dir,
        }
    }

    /// The next runs of the container called `name`; the last one repeats.
    pub(crate) fn script(&self, name: &str, scripts: &[Script]) {
        self.inner.lock().unwrap().scripts.insert(name.to_owned(), scripts.iter().copied().collect());
    }

    /// The results of the next pulls; afterwards they succeed.
    pub(crate) fn pulls(&self, results: Vec<Result<(), Status>>) {
        self.inner.lock().unwrap().pulls = results.into();
    }

    /// Where exec streams are served.
    pub(crate) fn stream_at(&self, url: &str) {
        self.inner.lock().unwrap().streaming_url = Some(url.to_owned());
    }

    /// How long each pull takes, and the states it goes through, one a second.
    pub(crate) fn slow_pulls(&self, takes: Duration, progress: Vec<WatchResponse>) {
        let mut inner = self.inner.lock().unwrap();
        (inner.pull_takes, inner.progress) = (takes, progress);
    }

    /// The file system that images are on: a path of this machine.
    pub(crate) fn image_disk(&self, path: &str) {
        self.inner.lock().unwrap().image_disk = Some(path.to_owned());
    }

    /// From now on only `user` may pull.
    pub(crate) fn private(&self, user: &str, error: Status) {
        self.inner.lock().unwrap().private = Some((user.to_owned(), error));
    }

    /// `user:password` of each pull so far.
    pub(crate) fn logins(&self) -> Vec<String> {
        self.inner.lock().unwrap().logins.clone()
    }

    /// Images have mirrors from now on.
    pub(crate) fn mirrored(&self, hosts: &[&str]) {
        self.inner.lock().unwrap().mirrors = hosts.iter().map(|host| (*host).to_owned()).collect();
    }

    /// `host user:password` for mirrors, of the last pull.
    pub(crate) fn mirror_logins(&self) -> Vec<String> {
        self.inner.lock().unwrap().mirror_logins.clone()
    }

    /// What look-ups of local images fail with.
    pub(crate) fn image_status_fails(&self, error: Option<Status>) {
        self.inner.lock().unwrap().image_status_error = error;
    }

    /// The configurations of the containers' mounts, newest last.
    pub(crate) fn mounts(&self, container: &str) -> Vec<v1::Mount> {
        let inner = self.inner.lock().unwrap();
        let of = |status: &v1::ContainerStatus| status.metadata.as_ref().unwrap().name == container;
        inner
            .containers
            .values()
            .filter(|(status, _, _)| of(status))
            .flat_map(|(s, _, _)| s.mounts.clone())
            .collect()
    }

    pub(crate) fn images(&self) -> Vec<String> {
        self.inner.lock().unwrap().images.clone()
    }

    pub(crate) fn add_image(&self, name: &str) {
        self.inner.lock().unwrap().images.push(name.to_owned());
    }

    /// What the command that begins with `program` ends with, and how long it takes.
    pub(crate) fn exec_result(&self, program: &str, code: i32, takes: Duration) {
        self.inner.lock().unwrap().exec.insert(program.to_owned(), (code, takes));
    }

    /// The address of all pods from now on.
    pub(crate) fn pod_ip(&self, ip: &str) {
        self.inner.lock().unwrap().pod_ip = Some(ip.to_owned());
    }

    /// How much memory the container called `name` uses from now on.
    pub(crate) fn memory(&self, name: &str, bytes: u64) {
        self.inner.lock().unwrap().memory.insert(name.to_owned(), bytes);
    }

    /// What every change of a container's resources answers from now on.
    pub(crate) fn updates_fail(&self, error: Option<Status>) {
        self.inner.lock().unwrap().update_error = error;
    }

    /// What the next sandboxes fail with.
    pub(crate) fn sandboxes_fail(&self, errors: Vec<Status>) {
        self.inner.lock().unwrap().sandbox_errors = errors.into();
    }

    /// The handlers that the runtime lists from now on.
    pub(crate) fn handlers(&self, names: &[&str]) {
        self.inner.lock().unwrap().handlers = names.iter().map(|name| (*name).to_owned()).collect();
    }

    fn is_running(&self, id: &str) -> bool {
        let running = v1::ContainerState::ContainerRunning as i32;
        self.inner.lock().unwrap().containers.get(id).is_some_and(|(status, _, _)| status.state == running)
    }

    /// Sandboxes are not ready any more; what is in them runs on.
    pub(crate) fn lose_sandbox(&self) {
        for sandbox in self.inner.lock().unwrap().sandboxes.values_mut() {
            sandbox.state = v1::PodSandboxState::SandboxNotready as i32;
        }
    }

    pub(crate) fn kill_sandbox(&self) {
        self.lose_sandbox();
        let ids: Vec<String> = self.inner.lock().unwrap().containers.keys().cloned().collect();
        for id in ids {
            self.end(&id, 137);
        }
    }

    pub(crate) fn containers(&self) -> Vec<v1::ContainerStatus> {
        self.inner.lock().unwrap().containers.values().map(|(status, _, _)| status.clone()).collect()
    }

    pub(crate) fn sandboxes(&self) -> usize {
        self.inner.lock().unwrap().sandboxes.len()
    }

    /// The calls without their times.
    pub(crate) fn call_names(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect()
    }

    /// The seconds since the start at which `call` came.
    pub(crate) fn times_of(&self, call: &str) -> Vec<i64> {
        self.calls.lock().unwrap().iter().filter(|(_, name)| name == call).map(|(at, _)| *at).collect()
    }

    fn note(&self, call: String) {
        let at = self.now();
        self.calls.lock().unwrap().push((at, call));
    }

    /// The seconds since the start.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_secs()).unwrap()
    }

    fn nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap()
    }

    /// All running containers end by themselves.
    pub(crate) fn end_all(&self, code: i32) {
        for status in self.containers() {
            if self.is_running(&status.id) {
                self.end(&status.id, code);
            }
        }
    }

    fn end(&self, id: &str, code: i32) {
        let status = {
            let mut inner = self.inner.lock().unwrap();
            let Some((status, _, _)) = inner.containers.get_mut(id) else { return };
            if status.state != v1::ContainerState::ContainerRunning as i32 {
                return;
            }
            status.state = v1::ContainerState::ContainerExited as i32;
            status.exit_code = code;
            status.finished_at = self.nanos();
            status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            status.clone()
        };
        let _ = self.events.send(v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: v1::ContainerEventType::ContainerStoppedEvent as i32,
            containers_statuses: vec![status],
            ..Default::default()
        });
    }
}

/// Notes that an exec did not get to its end.
struct Killed {
    runtime: FakeRuntime,
    program: String,
    ended: bool,
}

impl Drop for Killed {
    fn drop(&mut self) {
        if !self.ended {
            self.runtime.note(format!("exec {} killed", self.program));
        }
    }
}

//! A shim, bundles and containers of a test's own; everything is gone when it is dropped.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sampan_shim::client::{AttachOutput, Output, Shim, SpawnOptions, remove_remains};
use sampan_shim::protocol::{CreateContainer, DeleteContainer, ExecProcess, ExitRecord, OciRuntime, Status};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Embedded,
    Runc,
    Crun,
}

impl Runtime {
    pub(crate) fn present() -> Vec<Self> {
        let all = [Self::Embedded, Self::Runc, Self::Crun];
        all.into_iter().filter(|runtime| runtime.path().exists()).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    fn path(self) -> PathBuf {
        match self {
            Self::Embedded => std::env::current_exe().unwrap(),
            Self::Runc => "/usr/sbin/runc".into(),
            Self::Crun => "/usr/bin/crun".into(),
        }
    }

    pub(crate) fn oci(self, root: &Path) -> OciRuntime {
        let embedded = self == Self::Embedded;
        OciRuntime {
            path: self.path(),
            args: if embedded { vec!["oci".into()] } else { Vec::new() },
            root: root.to_owned(),
            hide_unified: self == Self::Crun,
            opaque: false,
        }
    }
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limit = Duration::from_secs(60);
    let guarded = async { tokio::time::timeout(limit, future).await.expect("the test hangs") };
    runtime.unwrap().block_on(guarded)
}

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fixture {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) shim: Shim,
    pub(crate) cgroup: String,
}

impl Fixture {
    pub(crate) async fn new(runtime: Runtime) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temp = tempfile::Builder::new().prefix("sampan-shim-").tempdir().unwrap();
        let options = Self::options(temp.path());
        Self {
            shim: Shim::spawn(&options).await.unwrap(),
            runtime,
            cgroup: format!("/sampan-shim-test-{}-{count}", std::process::id()),
            temp,
        }
    }

    pub(crate) fn options(temp: &Path) -> SpawnOptions {
        let exe = std::env::current_exe().unwrap();
        SpawnOptions::new("sandbox", exe, temp.join("shim"), temp.join("state"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn oci(&self) -> OciRuntime {
        self.runtime.oci(&self.path("oci"))
    }

    /// A bundle that runs applets; `change` may alter its configuration.
    pub(crate) fn bundle(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path(&format!("bundle-{id}"));
        fs::create_dir_all(bundle.join("rootfs/etc")).unwrap();
        let passwd = "root:x:0:0::/root:/t\nuser:x:1000:1000::/home/user:/t\n";
        fs::write(bundle.join("rootfs/etc/passwd"), passwd).unwrap();
        fs::write(bundle.join("rootfs/not-executable"), "").unwrap();
        let exe = std::env::current_exe().unwrap();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": process(args),
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/t", "type": "bind", "source": exe, "options": ["bind", "ro"]},
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    pub(crate) fn container(&self, id: &str, args: &[&str]) -> CreateContainer {
        self.container_with(id, args, |_| {})
    }

    pub(crate) fn container_with(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> CreateContainer {
        CreateContainer {
            id: id.into(),
            bundle: self.bundle(id, args, change),
            runtime: self.oci(),
            log_path: Some(self.path(&format!("{id}.log"))),
            tty: false,
            stdin: false,
            stdin_once: false,
            memory_cgroup: None,
            timeout_ms: Some(20_000),
        }
    }

    pub(crate) async fn start(&self, container: CreateContainer) -> i32 {
        let id = container.id.clone();
        let pid = self.shim.create(container).await.unwrap();
        self.shim.start(&id).await.unwrap();
        pid
    }

    /// Runs applets to their end and deletes the container; how it ended and its log's lines.
    pub(crate) async fn run(&self, id: &str, args: &[&str]) -> (ExitRecord, Vec<String>) {
        self.run_container(self.container(id, args)).await
    }

    pub(crate) async fn run_container(&self, container: CreateContainer) -> (ExitRecord, Vec<String>) {
        let id = container.id.clone();
        self.start(container).await;
        let exit = self.shim.wait(&id, None).await.unwrap();
        assert_eq!(self.delete(&id).await, Some(exit.clone()));
        (exit, self.log(&id))
    }

    pub(crate) async fn delete(&self, id: &str) -> Option<ExitRecord> {
        let delete = DeleteContainer { id: id.into(), force: true, runtime: None };
        self.shim.delete(delete).await.unwrap()
    }

    /// A log's lines without their times.
    pub(crate) fn log(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("{id}.log"))).unwrap();
        let lines = text.lines();
        lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    pub(crate) async fn wait_for_log(&self, id: &str, line: &str) {
        eventually("the log line", || self.log(id).iter().any(|known| known == line)).await;
    }

    pub(crate) async fn status(&self, id: &str) -> Option<Status> {
        let state = self.shim.state().await.unwrap();
        let found = state.containers.iter().find(|container| container.id == id);
        found.map(|container| container.status)
    }

    pub(crate) fn exec(&self, container: &str, id: &str, args: &[&str]) -> ExecProcess {
        ExecProcess {
            container: container.into(),
            id: id.into(),
            process: process(args),
            tty: false,
            stdin: false,
            attach: false,
        }
    }

    /// All cgroup directories of this test that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let below = hierarchies.map(|entry| entry.path());
        let all = below.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|dir| dir.join(self.cgroup.trim_start_matches('/'))).filter(|dir| dir.is_dir()).collect()
    }

    /// Deletes what is left and ends the shim.
    pub(crate) async fn finish(self) {
        let state = self.shim.state().await.unwrap();
        for container in state.containers {
            self.delete(&container.id).await;
        }
        self.shim.shutdown().await.unwrap();
        let dir = self.path("shim");
        eventually("the shim's directory to go", || !dir.exists()).await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.path("shim/shim.log"))
        {
            eprintln!("shim.log:\n{log}");
        }
        // After a failure: end the shim and its containers by force.
        let socket = self.path("shim/shim.sock");
        if socket.exists() {
            for pid in descendants(self.temp.path()) {
                let _ = kill(pid, 9);
            }
            let _ = remove_remains(&self.path("shim"));
        }
        for dir in self.cgroups() {
            for _ in 0..100 {
                let below = fs::read_dir(&dir).into_iter().flatten().flatten();
                for child in below.filter(|child| child.path().is_dir()) {
                    let procs = fs::read_to_string(child.path().join("cgroup.procs"));
                    for pid in procs.unwrap_or_default().lines() {
                        let _ = kill(pid.parse().unwrap(), 9);
                    }
                    let _ = fs::remove_dir(child.path());
                }
                if fs::remove_dir(&dir).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Processes that name this directory on their command line.
fn descendants(dir: &Path) -> Vec<i32> {
    let needle = dir.display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&needle)
    })
    .collect()
}

#[allow(unsafe_code)]
pub(crate) fn kill(pid: i32, signal: i32) -> std::io::Result<()> {
    // SAFETY: plain integers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

pub(crate) fn process(args: &[&str]) -> Value {
    let args: Vec<&str> = match args {
        [first, ..] if first.contains('/') || first.starts_with('?') => args.to_vec(),
        _ => [&["/t", "applet"], args].concat(),
    };
    let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"];
    json!({
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/usr/bin:/bin", "B=2", "A=1"],
        "cwd": "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
    })
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// All of a stream's output as text, and the exit if there was one.
pub(crate) async fn collect(output: &mut AttachOutput) -> (String, String, Option<ExitRecord>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut exit = None;
    while let Some(item) = output.next().await.unwrap() {
        match item {
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
            Output::Exit(record) => exit = Some(record),
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), exit)
}

/// Reads until the output so far satisfies.
pub(crate) async fn read_until(output: &mut AttachOutput, needle: &str) -> String {
    let mut text = String::new();
    while !text.contains(needle) {
        match output.next().await.unwrap() {
            Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            other => panic!("{other:?} before {needle:?}; so far {text:?}"),
        }
    }
    text
}

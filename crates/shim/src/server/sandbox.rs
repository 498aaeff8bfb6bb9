//! The pod's namespaces: made once, pinned, and held by a pause process when processes are shared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::container::now;
use super::event_loop::Shim;
use super::journal::note;
use crate::kernel::children::{self, WaitStatus};
use crate::kernel::namespaces::{self, Kind, Wanted};
use crate::kernel::{pause, pins};
use crate::protocol::{CreateSandbox, Event, ExitRecord, Failure, FailureCode, NamespaceMode, Sandbox};

impl Shim {
    pub(super) fn create_sandbox(&mut self, request: &CreateSandbox) -> Result<Sandbox, Failure> {
        if self.sandbox.is_some() {
            return Err(Failure::new(FailureCode::AlreadyExists, "the sandbox has been made already"));
        }
        let shared = [request.net, request.ipc, request.uts];
        if shared.contains(&NamespaceMode::Container) {
            return Err(Failure::new(
                FailureCode::InvalidArgument,
                "only the pid namespace can be each container's own",
            ));
        }
        match self.make_sandbox(request) {
            Ok(sandbox) => {
                self.sandbox = Some(sandbox.clone());
                Ok(sandbox)
            }
            Err(error) => {
                let pid = self.sandbox.take().and_then(|sandbox| sandbox.pause_pid);
                self.unpin_all(request.netns_path.as_deref(), pid);
                Err(Failure::new(FailureCode::Internal, format!("create the sandbox: {error}")))
            }
        }
    }

    fn make_sandbox(&mut self, request: &CreateSandbox) -> io::Result<Sandbox> {
        let dir = &self.arguments.dir;
        let ns = pins::prepare(dir)?;
        let mut sandbox = Sandbox::default();
        if let Some(ids) = &request.user {
            let target = ns.join("user");
            namespaces::make_user(ids, &target)?;
            sandbox.user = Some(target);
        }
        let user = sandbox.user.clone();
        let mut wanted = Vec::new();
        let mut want = |kind: Kind, mode, path: Option<&PathBuf>| {
            (mode == NamespaceMode::Pod).then(|| {
                let target = path.cloned().unwrap_or_else(|| ns.join(kind.name()));
                wanted.push(Wanted { kind, target: target.clone() });
                target
            })
        };
        let net = want(Kind::Net, request.net, request.netns_path.as_ref());
        let ipc = want(Kind::Ipc, request.ipc, None);
        let uts = want(Kind::Uts, request.uts, None);
        if !wanted.is_empty() {
            namespaces::make(&wanted, user.as_deref(), &request.hostname, &request.sysctls)?;
        }
        (sandbox.net, sandbox.ipc, sandbox.uts) = (net, ipc, uts);
        if request.pid == NamespaceMode::Pod {
            let join: Vec<&Path> = wanted.iter().map(|ns| ns.target.as_path()).collect();
            let pid = pause::start(user.as_deref(), &join)?;
            sandbox.pause_pid = Some(pid);
            self.sandbox = Some(sandbox.clone());
            for cgroup in &request.cgroups {
                fs::create_dir_all(cgroup)?;
                fs::write(cgroup.join("cgroup.procs"), pid.to_string())?;
            }
            if let Some(score) = request.oom_score_adj {
                // Lowering it may be refused; the pause process then lives with the shim's.
                let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
            }
            let target = ns.join("pid");
            pins::pin(Path::new(&format!("/proc/{pid}/ns/pid")), &target)?;
            sandbox.pid = Some(target);
            self.sandbox = None;
        }
        Ok(sandbox)
    }

    pub(super) fn apply_sysctls(&self, sysctls: &BTreeMap<String, String>) -> Result<(), Failure> {
        let Some(sandbox) = &self.sandbox else {
            return Err(Failure::new(FailureCode::FailedPrecondition, "the sandbox has not been made"));
        };
        let pinned = [&sandbox.net, &sandbox.ipc, &sandbox.uts];
        let paths: Vec<&Path> = pinned.into_iter().filter_map(Option::as_deref).collect();
        if paths.is_empty() {
            return Err(Failure::new(
                FailureCode::FailedPrecondition,
                "sysctls need namespaces of the pod's own",
            ));
        }
        namespaces::apply_sysctls(&paths, sysctls)
            .map_err(|error| Failure::new(FailureCode::Internal, error.to_string()))
    }

    pub(super) fn is_pause(&self, pid: i32) -> bool {
        let sandbox = self.sandbox.as_ref();
        sandbox.is_some_and(|sandbox| sandbox.pause_pid == Some(pid))
    }

    pub(super) fn pause_ended(&mut self, status: WaitStatus) {
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.pause_exited = true;
        }
        let exit =
            ExitRecord { code: status.code, signal: status.signal, finished_at: now(), oom_killed: false };
        self.pause_exit = Some(exit.clone());
        self.broadcast(&Event::SandboxExit { exit });
    }

    /// Ends the sandbox and all that the shim keeps on disk.
    pub(super) fn remove_sandbox(&mut self) {
        let (netns, pid) = match &self.sandbox {
            Some(sandbox) => {
                let pid = sandbox.pause_pid.filter(|_| !sandbox.pause_exited);
                (sandbox.net.clone(), pid)
            }
            None => (None, None),
        };
        self.unpin_all(netns.as_deref(), pid);
        if let Err(error) = pins::remove(&self.arguments.dir) {
            note(format_args!("remove the shim's directory: {error}"));
        }
    }

    fn unpin_all(&self, netns: Option<&Path>, pause: Option<i32>) {
        if let Some(pid) = pause {
            let _ = children::signal(pid, libc::SIGKILL);
            let _ = children::wait_for(pid);
        }
        // Where the daemon wanted it may be outside of our directory.
        let elsewhere = netns.map_or(Ok(()), pins::unpin);
        if let Err(error) = elsewhere.and(pins::clear(&self.arguments.dir)) {
            note(format_args!("unpin the namespaces: {error}"));
        }
    }
}

//! The postStart hook (HOOK-02 to HOOK-04, HOOK-16 to HOOK-18): the worker waits for it, and so does everything that
//! comes after the container.
//!
//! A file per container says that its hook is owed: it is made before the start and goes when the hook has had its
//! end, so that a daemon which dies in between does not lose the hook (at least once, HOOK-33).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::PodWorker;
use super::sandbox::pod_ip;
use super::start::Failure;
use super::stop::container_ended;
use crate::events::EventType;
use crate::hooks::{self, Cut, Ended, HookKind, HookTarget, Patience};
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::State;

/// The waiting reason of a container whose hook failed (HOOK-17), also in the metric of starts that failed.
const POST_START_HOOK_ERROR: &str = "PostStartHookError";

impl PodWorker {
    fn owed_post_starts(&self) -> PathBuf {
        self.ctx.pod_dir(&self.uid).join("post-start")
    }

    /// Writes down that the hook of a container that is about to start is owed.
    pub(super) fn owe_post_start(&self, container: &Container, id: &str) -> Result<(), String> {
        if container.lifecycle.as_ref().is_none_or(|lifecycle| lifecycle.post_start.is_none()) {
            return Ok(());
        }
        let dir = self.owed_post_starts();
        let file = dir.join(id);
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&file, ""))
            .map_err(|error| format!("{}: {error}", file.display()))
    }

    fn post_start_done(&self, id: &str) {
        let _ = std::fs::remove_file(self.owed_post_starts().join(id));
    }

    /// Runs the hook of a container that has just started, if there is one.
    pub(super) async fn post_start(
        &mut self,
        kind: ContainerKind,
        container: &Container,
        id: &str,
        restart_count: u32,
    ) -> Result<(), Failure> {
        let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        self.in_post_start.insert(id.to_owned());
        self.refresh().await;
        self.publish(false);
        let (ctx, inbox) = (Arc::clone(&self.ctx), Arc::clone(&self.inbox));
        let pod = Arc::clone(&self.pod);
        let ip = pod_ip(&pod, self);
        let target = HookTarget {
            ctx: &ctx,
            pod: &pod,
            kind,
            hook: HookKind::PostStart,
            container,
            container_id: id,
            restart_count,
            pod_ip: ip.as_deref(),
        };
        let ending = inbox.ending();
        let patience = Patience {
            seconds: 0,
            over: async {
                tokio::select! {
                    () = ending.cancelled() => Cut::PodEnds,
                    () = container_ended(&ctx, &inbox, id) => Cut::ContainerEnded,
                }
            },
        };
        let failed = match self.while_telling(hooks::run(&target, handler, patience)).await {
            // The pod's termination takes over.
            Ended::Well | Ended::Cut(Cut::PodEnds, _) => None,
            // What the node does needs no process in the container: that it ended is no failure of the hook.
            Ended::Cut(Cut::ContainerEnded, _) if handler.exec.is_none() => None,
            Ended::Failed(message) | Ended::Cut(_, message) => Some(message),
        };
        if let Some(message) = &failed {
            self.stop_after_failed_hook(kind, container, id, message).await;
        }
        // Only now: a container whose hook failed was never said to run (HOOK-04).
        self.in_post_start.remove(id);
        self.post_start_done(id);
        match failed {
            None => Ok(()),
            Some(message) => Err(Failure {
                event: None,
                retry_after: Duration::ZERO,
                ..Failure::new(POST_START_HOOK_ERROR, message)
            }),
        }
    }

    /// Tells of the failure, and stops the container as any other is stopped (HOOK-16).
    async fn stop_after_failed_hook(
        &mut self,
        kind: ContainerKind,
        container: &Container,
        id: &str,
        message: &str,
    ) {
        self.ctx.metrics.containers.start_failed(kind, POST_START_HOOK_ERROR);
        // The documented text (DESIGN.md, instead of HOOK-18); what the hook printed is not in it.
        self.container_event(kind, container, EventType::Warning, "FailedPostStartHook", message);
        self.refresh().await;
        let grace = pod_ref::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        if let Some(run) = self.runtime.containers.iter().find(|run| run.id == id).cloned() {
            self.stop_containers(vec![(run, "FailedPostStartHook".to_owned(), grace)]).await;
        }
        self.refresh().await;
    }

    /// Runs hooks that an earlier daemon did not bring to their end.
    pub(super) async fn resume_post_starts(&mut self) {
        for entry in std::fs::read_dir(self.owed_post_starts()).into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let run = self.runtime.containers.iter().find(|run| run.id == id && run.state == State::Running);
            let found = run.and_then(|run| {
                let (kind, container) = pod_ref::find_container(&self.pod, &run.name)?;
                Some((kind, container, run.restart_count))
            });
            match found {
                Some((kind, container, restart_count)) => {
                    if let Err(failure) = self.post_start(kind, &container, &id, restart_count).await {
                        self.note_failure(kind, &container, failure);
                    }
                }
                None => self.post_start_done(&id),
            }
        }
    }
}

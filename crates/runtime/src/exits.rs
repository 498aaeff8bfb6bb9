//! How containers end: each ready sandbox has a task that listens to its shim.

use std::sync::Arc;
use std::time::Duration;

use sampan_cri::v1::{ContainerEventResponse, ContainerEventType, NamespaceMode};
use sampan_shim::protocol::{Event, ExitRecord};

use crate::container::{self, Container};
use crate::network::chain;
use crate::runtime::Runtime;
use crate::sandbox::{self, Sandbox, namespace_options};
use crate::state::ContainerState;
use crate::time;

/// Between attempts to reach a shim that lives but broke the connection.
const RETRY: Duration = Duration::from_millis(200);
/// From a container's end to removing what is left of it, unless somebody asks for that: the container that is started
/// in its place has the processors first.
const COURTESY: Duration = Duration::from_millis(100);

/// Listens to a sandbox's shim until the sandbox is stopped or the shim is dead.
pub(crate) fn watch(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) {
    let (runtime, sandbox) = (Arc::clone(runtime), Arc::clone(sandbox));
    tokio::spawn(async move {
        let shutdown = runtime.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = listen(&runtime, &sandbox) => {}
        }
    });
}

async fn listen(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) {
    while sandbox.is_ready() {
        // A sandbox that is being stopped has given its shim away.
        let Ok(shim) = sandbox.shim() else { return };
        match shim.events().await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(event)) => handle(runtime, sandbox, event),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(sandbox = sandbox.id, error = chain(&error), "events of a shim");
                        break;
                    }
                }
            },
            Err(error) if error.is_gone() => {
                if sandbox.shim().is_ok() && sandbox.is_ready() {
                    tracing::warn!(sandbox = sandbox.id, "a shim died");
                    shim_died(runtime, sandbox).await;
                }
                return;
            }
            Err(error) => tracing::warn!(sandbox = sandbox.id, error = chain(&error), "events of a shim"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn handle(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>, event: Event) {
    match event {
        Event::Exit { id, exec: None, exit } => {
            let container = runtime.container_map().get(&id).cloned();
            if let Some(container) = container {
                let (runtime, sandbox) = (Arc::clone(runtime), Arc::clone(sandbox));
                tokio::spawn(async move {
                    // Most are started again.
                    runtime.moves.expect();
                    record(&runtime, &sandbox, &container, &exit).await;
                    if !shares_processes(&sandbox) {
                        tokio::time::sleep(COURTESY).await;
                    }
                    container::clean(&runtime, &container).await;
                });
            }
        }
        // Whoever ran it waits for it.
        Event::Exit { exec: Some(_), .. } => {}
        Event::SandboxExit { .. } => {
            tracing::warn!(sandbox = sandbox.id, "a pause process died");
            if sandbox::mark_not_ready(runtime, sandbox) {
                runtime.publish(sandbox, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
            }
        }
    }
}

/// A container's process has ended: it is recorded and told, and what is left of the container is removed.
pub(crate) async fn ended(
    runtime: &Arc<Runtime>,
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    exit: &ExitRecord,
) {
    record(runtime, sandbox, container, exit).await;
    container::clean(runtime, container).await;
}

/// Whether processes of a container may outlive its first one, so that removing what is left ends them.
fn shares_processes(sandbox: &Sandbox) -> bool {
    namespace_options(&sandbox.record().config).pid() != NamespaceMode::Container
}

async fn record(
    runtime: &Arc<Runtime>,
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    exit: &ExitRecord,
) {
    // A process that ends at once must not be recorded before its start is.
    let starting = container.starting.lock().await;
    let changed = container.update(&runtime.state, |status| {
        if status.state == ContainerState::Exited {
            return false;
        }
        status.state = ContainerState::Exited;
        status.pid = 0;
        status.exit_code = exit.code;
        status.finished_at = exit.finished_at;
        let reason = match exit {
            ExitRecord { oom_killed: true, .. } => "OOMKilled",
            ExitRecord { code: 0, .. } => "Completed",
            _ => "Error",
        };
        reason.clone_into(&mut status.reason);
        true
    });
    drop(starting);
    if changed {
        let (state, id) = (runtime.state.clone(), container.id.clone());
        tokio::task::spawn_blocking(move || {
            // (Removed meanwhile, it needs no record.)
            if let Err(error) = state.sync_container(&id)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(container = id, %error, "bringing a container's record to the disk");
            }
        });
        runtime.publish(sandbox, &container.id, ContainerEventType::ContainerStoppedEvent);
    }
}

/// A shim died without having been asked to: its containers lose their parent and their logs, so they end.
pub(crate) async fn shim_died(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) {
    sandbox.take_shim();
    for container in runtime.containers_of(&sandbox.id) {
        if container.status().state != ContainerState::Running {
            continue;
        }
        let cgroup = container.record().cgroup.clone();
        let cgroups = runtime.host.cgroups.clone();
        let _ = tokio::task::spawn_blocking(move || cgroups.kill(&cgroup)).await;
        let exit = runtime.state.exit(&container.id).unwrap_or_else(|| ExitRecord {
            code: 137,
            signal: 9,
            finished_at: time::now(),
            oom_killed: false,
        });
        ended(runtime, sandbox, &container, &exit).await;
    }
    if sandbox::mark_not_ready(runtime, sandbox) {
        runtime.publish(sandbox, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
    }
}

impl Runtime {
    /// Tells listeners about a container (or the sandbox itself, by its id).
    pub(crate) fn publish(&self, sandbox: &Sandbox, id: &str, kind: ContainerEventType) {
        if !self.events.wanted() {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        self.events.send(
            ContainerEventResponse {
                container_id: id.to_owned(),
                pod_sandbox_status: Some(sandbox.status()),
                containers_statuses: containers.iter().map(|container| container.cri_status()).collect(),
                ..Default::default()
            },
            kind,
        );
    }
}

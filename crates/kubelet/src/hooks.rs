//! Lifecycle hooks (HOOK-01 to HOOK-15): what all handlers have in common. How long they may take, the words for
//! their failure, and where what they printed is kept. One file per handler.
//!
//! A hook runs in one call of [`run`]; dropping that call gives the hook up, and an exec handler's processes are
//! killed with it. Nothing of a hook outlives its call.

mod exec;
mod http_get;
pub(crate) mod log;
mod output;
mod tcp_socket;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::go_duration;
use crate::pod_ref::{self, ContainerKind};
use output::Output;

/// What the runtime gets to answer for an exec handler that it ended itself at the end of the grace period.
const ANSWER_TIME: Duration = Duration::from_millis(300);

/// Which of a container's two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

impl HookKind {
    /// The field's name, which is also the name of the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PostStart => "postStart",
            Self::PreStop => "preStop",
        }
    }
}

/// Where a hook runs.
pub(crate) struct HookTarget<'a> {
    pub(crate) ctx: &'a NodeContext,
    pub(crate) pod: &'a Pod,
    pub(crate) kind: ContainerKind,
    pub(crate) hook: HookKind,
    pub(crate) container: &'a Container,
    pub(crate) container_id: &'a str,
    /// Which run of the container it is; names the log.
    pub(crate) restart_count: u32,
    /// The pod's address; none yet is an error for HTTP and TCP handlers (HOOK-09).
    pub(crate) pod_ip: Option<&'a str>,
}

impl HookTarget<'_> {
    /// The host that a network handler talks to: its own, else the pod's address.
    fn host(&self, own: Option<&str>) -> Result<String, String> {
        own.filter(|host| !host.is_empty()).or(self.pod_ip).map(str::to_owned).ok_or_else(|| {
            format!(
                "failed to find networking container: pod {:?} has no IP address",
                pod_ref::full_name(self.pod)
            )
        })
    }
}

/// Why a hook was not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The grace period was over (HOOK-26).
    GracePeriod,
    /// The pod is to end: its termination takes over.
    PodEnds,
    /// The container's process ended: there is nobody left to do it for.
    ContainerEnded,
}

/// How a hook came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Well,
    /// With an error: the text for event and waiting message. What the handler printed is not in it.
    Failed(String),
    /// It was given up; the text says after how long.
    Cut(Cut, String),
}

/// Why a handler failed.
enum Failure {
    /// Anything but exec.
    Error(String),
    /// An exec: the error, and what the runtime said.
    Exec { error: String, message: String },
    /// Given up.
    Cut(Cut, Duration),
}

/// How long a hook may take.
pub(crate) struct Patience<F> {
    /// Whole seconds that a runtime is told, 0 for no limit.
    pub(crate) seconds: i64,
    /// Resolves when the hook is to be given up.
    pub(crate) over: F,
}

/// Runs `handler` to its end, and keeps what it printed.
pub(crate) async fn run<F>(
    target: &HookTarget<'_>,
    handler: &LifecycleHandler,
    patience: Patience<F>,
) -> Ended
where
    F: Future<Output = Cut>,
{
    let began = Instant::now();
    let began_at = target.ctx.config.clock.now();
    let mut output = Output::default();
    let over = async {
        let cut = patience.over.await;
        if handler.exec.is_some() && cut != Cut::PodEnds {
            // The runtime ends it at the same moment, and knows what it has printed.
            tokio::time::sleep(ANSWER_TIME).await;
        }
        cut
    };
    let result = tokio::select! {
        biased;
        result = handle(target, handler, patience.seconds, &mut output) => result,
        cut = over => Err(Failure::Cut(cut, began.elapsed())),
    };
    if handler.sleep.is_some() && matches!(result, Err(Failure::Cut(..))) {
        target.ctx.metrics.containers.sleeps_cut.inc();
    }
    let (error, ended) = match result {
        Ok(()) => (None, Ended::Well),
        Err(failure) => {
            let (error, text) = words(target, handler, &failure);
            let ended = match failure {
                Failure::Cut(cut, _) => Ended::Cut(cut, text),
                _ => Ended::Failed(text),
            };
            (Some(error), ended)
        }
    };
    log::append(target, &describe(handler), began_at, began.elapsed(), error.as_deref(), &output);
    ended
}

async fn handle(
    target: &HookTarget<'_>,
    handler: &LifecycleHandler,
    seconds: i64,
    output: &mut Output,
) -> Result<(), Failure> {
    if let Some(exec) = &handler.exec {
        return exec::run(target, exec.command.as_deref().unwrap_or_default(), seconds, output).await;
    }
    if let Some(get) = &handler.http_get {
        return http_get::run(target, get, output).await.map_err(Failure::Error);
    }
    if let Some(tcp) = &handler.tcp_socket {
        return tcp_socket::run(target, tcp).await.map_err(Failure::Error);
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(Failure::Error("invalid handler".to_owned()))
}

/// What a handler is, for its log.
fn describe(handler: &LifecycleHandler) -> String {
    if let Some(exec) = &handler.exec {
        return format!("exec [{}]", exec.command.as_deref().unwrap_or_default().join(" "));
    }
    if let Some(get) = &handler.http_get {
        return format!("httpGet {} port {}", get.path.as_deref().unwrap_or("/"), output::port(&get.port));
    }
    if let Some(tcp) = &handler.tcp_socket {
        return format!("tcpSocket port {}", output::port(&tcp.port));
    }
    match &handler.sleep {
        Some(sleep) => format!("sleep {}s", sleep.seconds),
        None => "no handler".to_owned(),
    }
}

/// The error alone, and the documented text around it (HOOK-18 as DESIGN.md has it).
fn words(target: &HookTarget<'_>, handler: &LifecycleHandler, failure: &Failure) -> (String, String) {
    let (error, message) = match failure {
        Failure::Error(error) => (error.clone(), ""),
        Failure::Exec { error, message } => (error.clone(), message.as_str()),
        Failure::Cut(cut, after) => {
            let after = go_duration::format(Duration::from_millis(after.as_millis() as u64 / 100 * 100));
            let why = match cut {
                Cut::GracePeriod => "the grace period was over",
                Cut::PodEnds => "the pod is to end",
                Cut::ContainerEnded => "the container ended",
            };
            let error = match handler.sleep {
                Some(_) => {
                    format!("container terminated before sleep hook finished: cut after {after}, {why}")
                }
                None => format!("cut after {after}, {why}"),
            };
            (error, "")
        }
    };
    let subject =
        format!("for Container {:?} in Pod {:?}", target.container.name, pod_ref::full_name(target.pod));
    let text = if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default().join(" ");
        format!("Exec lifecycle hook ([{command}]) {subject} failed - error: {error}, message: {message:?}")
    } else if let Some(get) = &handler.http_get {
        let path = get.path.as_deref().unwrap_or_default();
        format!("HTTP lifecycle hook ({path}) {subject} failed - error: {error}")
    } else if let Some(tcp) = &handler.tcp_socket {
        format!("TCP lifecycle hook ({}) {subject} failed - error: {error}", output::port(&tcp.port))
    } else if let Some(sleep) = &handler.sleep {
        format!("Sleep lifecycle hook ({}) {subject} failed - error: {error}", sleep.seconds)
    } else {
        format!("Cannot run handler: {error} {subject}")
    };
    (error, text)
}

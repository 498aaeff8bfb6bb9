//! Staying with the pods of a run: what happens to them, why, and what they print.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::{
    Api, Client,
    api::LogParams,
    runtime::{WatchStreamExt, watcher},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    outcome::{Outcome, phase},
    pull_progress,
    session::Session,
};
use crate::{
    manifests::Manifest,
    output::{Printer, Tone},
};

/// How long the last lines of a log may take after the pod has ended.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// Follows all pods until each has ended, or until `interrupted`.
pub(super) async fn until_done(
    session: &Session,
    pods: &[Manifest],
    printer: &Printer,
    interrupted: CancellationToken,
) -> Result<Outcome> {
    if pods.is_empty() {
        return Ok(Outcome::default());
    }
    let images = pods.iter().flat_map(|pod| images(&pod.object.data)).collect::<HashSet<_>>();
    let progress = pull_progress::show(session.cri_socket(), images, printer.clone());
    let mut followers = JoinSet::new();
    for pod in pods {
        let follower = Follower::new(session.client().clone(), pod, printer.clone());
        followers.spawn(follower.run(interrupted.clone()));
    }
    let mut outcome = Outcome::default();
    while let Some(followed) = followers.join_next().await {
        outcome.pods.extend(followed.context("following a pod")??);
    }
    outcome.interrupted = interrupted.is_cancelled();
    drop(progress);
    Ok(outcome)
}

fn images(pod: &serde_json::Value) -> Vec<String> {
    let containers =
        ["/spec/initContainers", "/spec/containers"].into_iter().filter_map(|at| pod.pointer(at));
    let images = containers.filter_map(serde_json::Value::as_array).flatten();
    images.filter_map(|container| container.get("image")?.as_str().map(str::to_owned)).collect()
}

/// What is known of one pod so far: everything is told once.
struct Follower {
    api: Api<Pod>,
    events: Api<Event>,
    name: String,
    uid: String,
    printer: Printer,
    last: Option<Pod>,
    /// Ids of containers whose log is being shown.
    logged: HashSet<String>,
    /// The state told last, by container.
    told: BTreeMap<String, String>,
    logs: JoinSet<()>,
}

impl Follower {
    fn new(client: Client, pod: &Manifest, printer: Printer) -> Self {
        let namespace = pod.object.metadata.namespace.clone().unwrap_or_default();
        Self {
            api: Api::namespaced(client.clone(), &namespace),
            events: Api::namespaced(client, &namespace),
            name: pod.object.metadata.name.clone().unwrap_or_default(),
            uid: pod.object.metadata.uid.clone().unwrap_or_default(),
            printer,
            last: None,
            logged: HashSet::new(),
            told: BTreeMap::new(),
            logs: JoinSet::new(),
        }
    }

    /// Until the pod has ended or is gone; its last state, if it was seen.
    async fn run(mut self, interrupted: CancellationToken) -> Result<Option<Pod>> {
        let events = tokio::spawn(tell_events(
            self.events.clone(),
            self.uid.clone(),
            self.name.clone(),
            self.printer.clone(),
        ));
        let by_name = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut changes = watcher(self.api.clone(), by_name).default_backoff().boxed();
        loop {
            let change = tokio::select! {
                change = changes.try_next() => change,
                () = interrupted.cancelled() => break,
            };
            match change {
                Ok(Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                    if pod.metadata.uid.as_deref() != Some(self.uid.as_str()) {
                        break;
                    }
                    self.tell(&pod);
                    let ended = matches!(phase(&pod), "Succeeded" | "Failed");
                    self.last = Some(pod);
                    if ended {
                        break;
                    }
                }
                Ok(Some(watcher::Event::Delete(_))) | Ok(None) => break,
                Ok(Some(_)) => {}
                // The watcher has its own back-off; a server that restarts comes back.
                Err(error) => self.printer.warning(format!("{}: {error}", self.name)),
            }
        }
        // What a container printed last may come after the news of its end.
        if !interrupted.is_cancelled() {
            let all = async { while self.logs.join_next().await.is_some() {} };
            if tokio::time::timeout(LOG_PATIENCE, all).await.is_err() {
                self.printer.warning(format!("{}: the log did not end in time", self.name));
            }
        }
        events.abort();
        Ok(self.last)
    }

    fn tell(&mut self, pod: &Pod) {
        let Some(status) = &pod.status else { return };
        let containers = [&status.init_container_statuses, &status.container_statuses];
        for container in containers.into_iter().flatten().flatten() {
            self.tell_container(container);
            self.show_log(container);
        }
        let before = self.last.as_ref().map(phase).unwrap_or("").to_owned();
        if phase(pod) != before && !before.is_empty() {
            let reason = status.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            self.printer.status(format!("{}: {}{reason}", self.name, phase(pod)));
        }
    }

    fn tell_container(&mut self, container: &ContainerStatus) {
        let Some(text) = container.state.as_ref().and_then(describe) else { return };
        let told = self.told.entry(container.name.clone()).or_default();
        if *told != text {
            self.printer.status(format!("{}/{}: {text}", self.name, container.name));
            *told = text;
        }
    }

    /// Follows the log of a container that has begun to run, once per run of it.
    fn show_log(&mut self, container: &ContainerStatus) {
        let state = container.state.as_ref();
        let has_run = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        let Some(id) = container.container_id.clone().filter(|_| has_run) else { return };
        if !self.logged.insert(id) {
            return;
        }
        let prefix = self.printer.toned(Tone::Dim, &format!("{}/{} |", self.name, container.name));
        let (api, name, printer) = (self.api.clone(), self.name.clone(), self.printer.clone());
        let params =
            LogParams { follow: true, container: Some(container.name.clone()), ..LogParams::default() };
        self.logs.spawn(async move {
            let stream = match api.log_stream(&name, &params).await {
                Ok(stream) => stream,
                Err(error) => return printer.warning(format!("{name}: reading the log: {error}")),
            };
            let mut lines = stream.lines();
            while let Ok(Some(line)) = lines.try_next().await {
                printer.line(format!("{prefix} {line}"));
            }
        });
    }
}

/// A container's state in a few words; nothing for the plain waiting that every pod goes through.
fn describe(state: &ContainerState) -> Option<String> {
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("");
        return match reason {
            "" | "ContainerCreating" | "PodInitializing" => None,
            _ => Some(match waiting.message.as_deref() {
                Some(message) => format!("waiting: {reason}: {message}"),
                None => format!("waiting: {reason}"),
            }),
        };
    }
    if let Some(terminated) = &state.terminated {
        let (code, reason) = (terminated.exit_code, terminated.reason.as_deref().unwrap_or(""));
        return Some(match terminated.message.as_deref() {
            Some(message) if code != 0 => format!("exited with code {code} ({reason}): {message}"),
            _ => format!("exited with code {code} ({reason})"),
        });
    }
    state.running.as_ref().map(|_| "running".to_owned())
}

/// Tells the events of one pod as they come: warnings in full, the others as one line of progress.
async fn tell_events(api: Api<Event>, uid: String, name: String, printer: Printer) {
    let of_pod = watcher::Config::default().fields(&format!("involvedObject.uid={uid}"));
    let mut changes = watcher(api, of_pod).default_backoff().applied_objects().boxed();
    let mut told = HashSet::new();
    while let Some(change) = changes.next().await {
        let Ok(event) = change else { continue };
        let (message, reason) = (event.message.unwrap_or_default(), event.reason.unwrap_or_default());
        // These two are told by the container's own state.
        if matches!(reason.as_str(), "Started" | "Created") || !told.insert((reason.clone(), message.clone()))
        {
            continue;
        }
        let message = message.trim_end();
        match event.type_.as_deref() {
            Some("Warning") => printer.warning(format!("{name}: {reason}: {message}")),
            _ => printer.status(format!("{name}: {message}")),
        }
    }
}

//! Why a pod does not run, in plain words with the fix: the logic of `sampan explain`.
//!
//! [`Story`] is everything that the API tells about the pod; each file below knows one kind of trouble and finds
//! it in the story. Nothing here talks to anybody, so every answer is tested.

mod containers;
mod images;
mod life;
mod probes;
mod scheduling;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, PodSpec, PodStatus};

/// What is known about a Secret: enough to explain, nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFact {
    /// There is none of that name.
    Missing,
    /// It is there; its type, and the registries that it has entries for.
    Present { kind: String, registries: Vec<String> },
    /// We may not look.
    Unknown,
}

/// Everything about one pod.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) pod: Pod,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// The pod's pull secrets.
    pub(crate) pull_secrets: BTreeMap<String, SecretFact>,
    /// The last lines of containers that ended badly.
    pub(crate) logs: BTreeMap<String, String>,
    /// Claims that the pod mounts: phase, or `None` when there is none of that name.
    pub(crate) claims: BTreeMap<String, Option<String>>,
}

/// One thing to know, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// In one sentence.
    pub(crate) what: String,
    /// What was said, by whom; a line each.
    pub(crate) details: Vec<String>,
    /// What to do; a line each, commands among them.
    pub(crate) fix: Vec<String>,
}

impl Finding {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    fn detail(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.details.push(text);
        }
        self
    }

    fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix.push(text.into());
        self
    }
}

impl Story {
    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    fn status(&self) -> PodStatus {
        self.pod.status.clone().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn phase(&self) -> String {
        self.status().phase.unwrap_or_else(|| "Unknown".to_owned())
    }

    /// All containers with what they are: `init container`, `container`, `ephemeral container`.
    fn container_statuses(&self) -> Vec<(&'static str, ContainerStatus)> {
        let status = self.status();
        let of = |kind, list: Option<Vec<ContainerStatus>>| {
            list.into_iter().flatten().map(move |status| (kind, status)).collect::<Vec<_>>()
        };
        let mut all = of("init container", status.init_container_statuses);
        all.extend(of("container", status.container_statuses));
        all.extend(of("ephemeral container", status.ephemeral_container_statuses));
        all
    }

    /// The newest message of the pod's events with this reason.
    fn last_event(&self, reason: &str) -> Option<String> {
        let event = self.events.iter().rev().find(|event| event.reason.as_deref() == Some(reason))?;
        event.message.clone()
    }
}

/// Everything that keeps the pod from running, the first cause first; empty when nothing does.
pub(crate) fn explain(story: &Story) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(life::findings(story));
    findings.extend(scheduling::findings(story));
    findings.extend(volumes::findings(story));
    for (kind, status) in story.container_statuses() {
        findings.extend(images::finding(story, kind, &status));
        findings.extend(containers::finding(story, kind, &status));
    }
    findings.extend(probes::findings(story));
    findings
}

#[cfg(test)]
mod tests;

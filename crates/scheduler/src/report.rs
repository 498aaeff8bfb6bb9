//! What the scheduler writes: bindings, events, and the `PodScheduled` condition.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, TypeMeta};
use kube::{Api, Client};
use sampan_api::meta::{format_micro_time, format_time};
use serde_json::{Value, json};

use crate::DEFAULT_SCHEDULER;
use crate::pod::Pod;

/// The kinds that the scheduler reads and writes.
pub(crate) fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

/// PodDisruptionBudgets.
pub(crate) fn budgets() -> ApiResource {
    ApiResource {
        group: "policy".into(),
        api_version: "policy/v1".into(),
        ..resource("PodDisruptionBudget", "poddisruptionbudgets")
    }
}

/// Writes to the API for one scheduler.
#[derive(Clone)]
pub(crate) struct Reporter {
    client: Client,
    /// `default-scheduler-<host>`, as events name who wrote them.
    instance: Arc<str>,
}

/// An event that was written, to be counted up when the same happens again.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    message: String,
    event: String,
    count: i64,
}

impl Reporter {
    pub(crate) fn new(client: Client) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { client, instance: format!("{DEFAULT_SCHEDULER}-{}", host.trim()).into() }
    }

    fn api(&self, pod: &Pod, kind: &str, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &pod.key.namespace, &resource(kind, plural))
    }

    /// Binds a pod to a node; the API sets `PodScheduled` to true.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        });
        let pods = self.api(pod, "Pod", "pods");
        let _status: Value =
            pods.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await?;
        Ok(())
    }

    /// POD-19.
    pub(crate) async fn scheduled(&self, pod: &Pod, node: &str) {
        let note = format!("Successfully assigned {} to {node}", pod.key);
        self.event(pod, "Normal", "Scheduled", "Binding", &note).await;
    }

    /// A pod that fits nowhere: an event (or one more of `before`) and the condition.
    pub(crate) async fn unschedulable(
        &self,
        pod: &Pod,
        message: String,
        before: Option<Reported>,
    ) -> Option<Reported> {
        let reported = self.failed(pod, message.clone(), before.clone()).await;
        if before.is_none_or(|before| before.message != message) {
            self.set_condition(pod, "Unschedulable", &message).await;
        }
        reported
    }

    /// The `FailedScheduling` event, or one more of it.
    pub(crate) async fn failed(
        &self,
        pod: &Pod,
        message: String,
        before: Option<Reported>,
    ) -> Option<Reported> {
        match before {
            Some(mut before) if before.message == message => {
                before.count += 1;
                self.count_up(pod, &before).await;
                Some(before)
            }
            _ => {
                let event = self.event(pod, "Warning", "FailedScheduling", "Scheduling", &message).await?;
                Some(Reported { message, event, count: 1 })
            }
        }
    }

    /// Evicts a pod for a more important one on `node`: the victim's condition and event, and its deletion. Whether it
    /// goes.
    pub(crate) async fn evict(&self, victim: &Pod, preemptor: &Pod, node: &str) -> bool {
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": format!("{DEFAULT_SCHEDULER}: preempting to accommodate a higher priority pod"),
            "observedGeneration": victim.generation,
            "lastProbeTime": null,
            "lastTransitionTime": format_time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
        let pods = self.api(victim, "Pod", "pods");
        let params = PatchParams::default();
        if let Err(error) = pods.patch_status(&victim.key.name, &params, &Patch::Strategic(&patch)).await {
            tracing::debug!(pod = %victim.key, %error, "the victim's condition cannot be written");
        }
        let uid = Some(victim.uid.clone());
        let only = Preconditions { uid, ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match pods.delete(&victim.key.name, &params).await {
            Ok(_) => {
                let note = format!("Preempted by pod {} on node {node}", preemptor.uid);
                self.event(victim, "Normal", "Preempted", "Preempting", &note).await;
                true
            }
            // Gone by itself, or replaced: the room is there or the next try sees what is.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(pod = %victim.key, %error, "the victim cannot be deleted; trying again");
                false
            }
        }
    }

    /// Tells everybody that a node is being made free for the pod, or is not any more.
    pub(crate) async fn nominate(&self, pod: &Pod, node: Option<&str>) {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}});
        let pods = self.api(pod, "Pod", "pods");
        let params = PatchParams::default();
        if let Err(error) = pods.patch_status(&pod.key.name, &params, &Patch::Strategic(&patch)).await {
            tracing::debug!(pod = %pod.key, %error, "the nominated node cannot be written");
        }
    }

    async fn set_condition(&self, pod: &Pod, reason: &str, message: &str) {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": pod.generation,
            "lastProbeTime": null,
            "lastTransitionTime": format_time(Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        let pods = self.api(pod, "Pod", "pods");
        let result =
            pods.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
        if let Err(error) = result {
            tracing::warn!(pod = %pod.key, %error, "the pod's condition cannot be written");
        }
    }

    /// Writes an event; returns its name. Events are help, not state: failures are only logged.
    async fn event(
        &self,
        pod: &Pod,
        event_type: &str,
        reason: &str,
        action: &str,
        message: &str,
    ) -> Option<String> {
        let now = Timestamp::now();
        let name = format!("{}.{:x}", pod.key.name, now.as_nanosecond());
        let event = DynamicObject {
            types: Some(TypeMeta { api_version: "v1".into(), kind: "Event".into() }),
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(pod.key.namespace.clone()),
                ..ObjectMeta::default()
            },
            data: json!({
                "involvedObject": {
                    "apiVersion": "v1", "kind": "Pod",
                    "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid,
                },
                "type": event_type,
                "reason": reason,
                "action": action,
                "message": message,
                "eventTime": format_micro_time(now),
                "reportingComponent": DEFAULT_SCHEDULER,
                "reportingInstance": &*self.instance,
                "source": {},
                "firstTimestamp": null,
                "lastTimestamp": null,
            }),
        };
        match self.api(pod, "Event", "events").create(&PostParams::default(), &event).await {
            Ok(_) => Some(name),
            Err(error) => {
                tracing::debug!(pod = %pod.key, reason, %error, "the event cannot be written");
                None
            }
        }
    }

    async fn count_up(&self, pod: &Pod, reported: &Reported) {
        let observed = format_micro_time(Timestamp::now());
        let patch = json!({"series": {"count": reported.count, "lastObservedTime": observed}});
        let events = self.api(pod, "Event", "events");
        let result = events.patch(&reported.event, &PatchParams::default(), &Patch::Merge(&patch)).await;
        if let Err(error) = result {
            tracing::debug!(pod = %pod.key, %error, "the event cannot be counted up");
        }
    }
}

//! Workloads: Deployments and their kin, Jobs, autoscalers.

use serde_json::{Value, json};

use super::{field_mut, pod, set, set_text};
use crate::meta::{self, str_of};

pub(super) fn apps(kind: &str, object: &mut Value) {
    if kind == "ControllerRevision" {
        return;
    }
    pod::template_of(object);
    let spec = field_mut(object, "spec");
    match kind {
        "Deployment" => {
            set(spec, "replicas", 1);
            set(spec, "revisionHistoryLimit", 10);
            set(spec, "progressDeadlineSeconds", 600);
            let strategy = field_mut(spec, "strategy");
            set_text(strategy, "type", "RollingUpdate");
            if str_of(strategy, "type") == "RollingUpdate" {
                let rolling = field_mut(strategy, "rollingUpdate");
                set(rolling, "maxUnavailable", "25%");
                set(rolling, "maxSurge", "25%");
            }
        }
        "DaemonSet" => {
            set(spec, "revisionHistoryLimit", 10);
            let strategy = field_mut(spec, "updateStrategy");
            set_text(strategy, "type", "RollingUpdate");
            if str_of(strategy, "type") == "RollingUpdate" {
                let rolling = field_mut(strategy, "rollingUpdate");
                set(rolling, "maxUnavailable", 1);
                set(rolling, "maxSurge", 0);
            }
        }
        "StatefulSet" => stateful_set(spec),
        "ReplicaSet" => set(spec, "replicas", 1),
        _ => {}
    }
}

fn stateful_set(spec: &mut Value) {
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = field_mut(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if str_of(strategy, "type") == "RollingUpdate" {
        set(field_mut(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = field_mut(spec, "persistentVolumeClaimRetentionPolicy");
    set_text(retention, "whenDeleted", "Retain");
    set_text(retention, "whenScaled", "Retain");
    for claim in super::each(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        super::persistent_volume_claim(claim);
    }
}

pub(super) fn replication_controller(object: &mut Value) {
    pod::template_of(object);
    set(field_mut(object, "spec"), "replicas", 1);
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels.filter(Value::is_object) {
        let selector = object["spec"]["selector"].as_object().is_some_and(|s| !s.is_empty());
        if !selector {
            object["spec"]["selector"] = labels.clone();
        }
        if meta::labels(object).is_none_or(|l| l.is_empty()) {
            meta::metadata_mut(object).insert("labels".into(), labels);
        }
    }
}

pub(super) fn job(object: &mut Value) {
    job_spec(field_mut(object, "spec"));
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let (Some(labels), true) = (labels, meta::labels(object).is_none_or(|l| l.is_empty())) {
        meta::metadata_mut(object).insert("labels".into(), labels);
    }
}

fn job_spec(spec: &mut Value) {
    pod::template(field_mut(spec, "template"));
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let policy = if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", policy);
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in super::each(policy, "rules") {
            super::each(rule, "onPodConditions").for_each(|c| set_text(c, "status", "True"));
        }
    }
}

pub(super) fn cron_job(object: &mut Value) {
    let spec = field_mut(object, "spec");
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    // The template is a Job only in part: upstream defaults its pods and nothing else.
    let job = field_mut(field_mut(spec, "jobTemplate"), "spec");
    pod::template(field_mut(job, "template"));
}

pub(super) fn autoscaler(version: &str, object: &mut Value) {
    let spec = field_mut(object, "spec");
    set(spec, "minReplicas", 1);
    if version == "v1" {
        return;
    }
    if meta::items(spec, "metrics").is_empty() {
        spec["metrics"] = json!([{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    let Some(behavior) = spec.get_mut("behavior") else { return };
    let up = field_mut(behavior, "scaleUp");
    set(up, "stabilizationWindowSeconds", 0);
    set(up, "selectPolicy", "Max");
    set(
        up,
        "policies",
        json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
    let down = field_mut(behavior, "scaleDown");
    set(down, "selectPolicy", "Max");
    set(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
}

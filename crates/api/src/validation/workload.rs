//! Workloads: replicas, selectors, templates, strategies, schedules.

use serde_json::{Map, Value};

use super::{Errors, IMMUTABLE, label_selector, metadata, non_negative, one_of, pod};
use crate::{
    FieldError,
    field::Path,
    meta::{self, str_of},
    scheme::Resource,
    selector::LabelSelector,
};

/// A pod template: labels, annotations, pod spec.
pub(super) fn template(template: &Value, path: &Path, out: &mut Errors) {
    metadata::labels_and_annotations(template, path, out);
    pod::spec(&template["spec"], &path.child("spec"), false, out);
}

pub(super) fn apps(resource: &Resource, object: &Value, out: &mut Errors) {
    if resource.kind == "ControllerRevision" {
        if object.get("data").is_none() {
            out.push(FieldError::required("data", "data is mandatory"));
        }
        non_negative(object, "revision", &Path::default(), out);
        return;
    }
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        non_negative(spec, field, &path, out);
    }
    if resource.kind == "ReplicationController" {
        let selector = spec.get("selector").and_then(Value::as_object).filter(|s| !s.is_empty());
        match selector {
            None => out.push(FieldError::required(path.child("selector"), "")),
            Some(map) => matches_template(&LabelSelector::from_map(map), spec, &path, out),
        }
    } else {
        selector(resource, spec, &path, out);
    }
    let at = path.child("template");
    match spec.get("template") {
        None if resource.kind == "ReplicationController" => out.push(FieldError::required(&at, "")),
        found => template(found.unwrap_or(&Value::Null), &at, out),
    }
    let policy = at.child("spec").child("restartPolicy");
    let restart = spec.pointer("/template/spec/restartPolicy").and_then(Value::as_str).unwrap_or_default();
    if !restart.is_empty() && restart != "Always" {
        out.push(FieldError::not_supported(policy, restart, &["Always"]));
    }
    if spec.pointer("/template/spec/activeDeadlineSeconds").is_some() {
        let message = format!("activeDeadlineSeconds in {} is not Supported", resource.kind);
        out.push(FieldError::forbidden(at.child("spec").child("activeDeadlineSeconds"), message));
    }
    match resource.kind {
        "Deployment" => deployment_strategy(spec, &path, out),
        "DaemonSet" => strategy_type(spec, "updateStrategy", &["OnDelete", "RollingUpdate"], &path, out),
        "StatefulSet" => {
            strategy_type(spec, "updateStrategy", &["OnDelete", "RollingUpdate"], &path, out);
            one_of(
                str_of(spec, "podManagementPolicy"),
                &["OrderedReady", "Parallel"],
                &path.child("podManagementPolicy"),
                out,
            );
        }
        _ => {}
    }
}

fn selector(resource: &Resource, spec: &Value, path: &Path, out: &mut Errors) {
    let path_selector = path.child("selector");
    let Some(object) = spec.get("selector") else {
        out.push(FieldError::required(path_selector, ""));
        return;
    };
    label_selector(object, &path_selector, out);
    let Ok(parsed) = LabelSelector::from_object(Some(object)) else { return };
    if parsed.is_empty() {
        let kind = match resource.kind {
            "DaemonSet" => "daemonset".to_owned(),
            "StatefulSet" => "statefulset".to_owned(),
            other => other.to_lowercase(),
        };
        out.push(FieldError::invalid(
            path_selector,
            object.clone(),
            format!("empty selector is invalid for {kind}"),
        ));
    } else {
        matches_template(&parsed, spec, path, out);
    }
}

fn matches_template(selector: &LabelSelector, spec: &Value, path: &Path, out: &mut Errors) {
    let labels = spec.pointer("/template/metadata/labels").and_then(Value::as_object);
    if !selector.matches_labels(labels) {
        let shown = Value::Object(labels.cloned().unwrap_or_else(Map::new));
        let at = path.child("template").child("metadata").child("labels");
        out.push(FieldError::invalid(at, shown, "`selector` does not match template `labels`"));
    }
}

fn strategy_type(spec: &Value, field: &str, supported: &[&str], path: &Path, out: &mut Errors) {
    let kind = str_of(&spec[field], "type");
    one_of(kind, supported, &path.child(field).child("type"), out);
}

fn deployment_strategy(spec: &Value, path: &Path, out: &mut Errors) {
    strategy_type(spec, "strategy", &["Recreate", "RollingUpdate"], path, out);
    let (path, strategy) = (path.child("strategy"), &spec["strategy"]);
    let Some(rolling) = strategy.get("rollingUpdate") else { return };
    let path = path.child("rollingUpdate");
    if str_of(strategy, "type") == "Recreate" {
        out.push(FieldError::forbidden(path, "may not be specified when strategy `type` is 'Recreate'"));
        return;
    }
    let amounts = ["maxUnavailable", "maxSurge"].map(|f| rolling.get(f).map(amount));
    for (field, amount) in ["maxUnavailable", "maxSurge"].iter().zip(&amounts) {
        match amount {
            Some(Some(n)) if *n < 0 => {
                out.push(FieldError::invalid(path.child(field), *n, super::NON_NEGATIVE));
            }
            Some(None) => {
                let value = rolling[*field].clone();
                let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                out.push(FieldError::invalid(path.child(field), value, message));
            }
            _ => {}
        }
    }
    if amounts == [Some(Some(0)), Some(Some(0))] {
        let value = rolling["maxUnavailable"].clone();
        out.push(FieldError::invalid(
            path.child("maxUnavailable"),
            value,
            "may not be 0 when `maxSurge` is 0",
        ));
    }
}

/// The number of an int-or-percent; None for malformed text.
fn amount(value: &Value) -> Option<i64> {
    match value {
        Value::String(s) => s.strip_suffix('%').and_then(|n| n.parse::<u32>().ok()).map(i64::from),
        other => other.as_i64(),
    }
}

pub(super) fn apps_update(resource: &Resource, new: &Value, old: &Value, out: &mut Errors) {
    let path = Path::new("spec");
    if resource.kind == "ControllerRevision" {
        if new.get("data") != old.get("data") {
            out.push(FieldError::invalid("data", new["data"].clone(), IMMUTABLE));
        }
        return;
    }
    if resource.kind == "StatefulSet" {
        let strip = |object: &Value| {
            let mut spec = object["spec"].clone();
            for field in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                meta::object_mut(&mut spec).remove(field);
            }
            spec
        };
        if strip(new) != strip(old) {
            let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                           'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                           'minReadySeconds' are forbidden";
            out.push(FieldError::forbidden(&path, message));
        }
        return;
    }
    super::immutable(
        new.pointer("/spec/selector"),
        old.pointer("/spec/selector"),
        &path.child("selector"),
        out,
    );
}

pub(super) fn job(object: &Value, out: &mut Errors) {
    let spec = &object["spec"];
    job_spec(spec, &Path::new("spec"), out);
    if let Some(selector) = spec.get("selector") {
        let path = Path::new("spec");
        label_selector(selector, &path.child("selector"), out);
        if let Ok(parsed) = LabelSelector::from_object(Some(selector)) {
            matches_template(&parsed, spec, &path, out);
        }
    }
}

fn job_spec(spec: &Value, path: &Path, out: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "maxFailedIndexes",
    ] {
        non_negative(spec, field, path, out);
    }
    let mode = str_of(spec, "completionMode");
    if !mode.is_empty() {
        one_of(mode, &["Indexed", "NonIndexed"], &path.child("completionMode"), out);
    }
    if mode == "Indexed" && spec.get("completions").is_none() {
        let message = "when completion mode is Indexed";
        out.push(FieldError::required(path.child("completions"), message));
    }
    let at = path.child("template");
    template(&spec["template"], &at, out);
    let policy = at.child("spec").child("restartPolicy");
    match spec.pointer("/template/spec/restartPolicy").and_then(Value::as_str).unwrap_or_default() {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            out.push(FieldError::required(policy, "valid values: \"OnFailure\", \"Never\""));
        }
        other => out.push(FieldError::not_supported(policy, other, &["OnFailure", "Never"])),
    }
}

pub(super) fn job_update(new: &Value, old: &Value, out: &mut Errors) {
    let path = Path::new("spec");
    let suspended = old.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"] {
        let pointer = format!("/spec/{field}");
        super::immutable(new.pointer(&pointer), old.pointer(&pointer), &path.child(field), out);
    }
    let indexed = str_of(&new["spec"], "completionMode") == "Indexed";
    if !indexed {
        let at = path.child("completions");
        super::immutable(new.pointer("/spec/completions"), old.pointer("/spec/completions"), &at, out);
    }
    if !suspended {
        let at = path.child("template");
        super::immutable(new.pointer("/spec/template"), old.pointer("/spec/template"), &at, out);
    }
}

pub(super) fn cron_job(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if meta::name(object).len() > 52 {
        out.push(FieldError::invalid(
            "metadata.name",
            meta::name(object),
            "must be no more than 52 characters",
        ));
    }
    let schedule = str_of(spec, "schedule");
    if schedule.is_empty() {
        out.push(FieldError::required(path.child("schedule"), ""));
    } else if let Some(error) = schedule_error(schedule) {
        out.push(FieldError::invalid(path.child("schedule"), schedule, error));
    }
    if schedule.contains("TZ") {
        let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        out.push(FieldError::invalid(path.child("schedule"), schedule, message));
    }
    non_negative(spec, "startingDeadlineSeconds", &path, out);
    one_of(
        str_of(spec, "concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
        &path.child("concurrencyPolicy"),
        out,
    );
    non_negative(spec, "successfulJobsHistoryLimit", &path, out);
    non_negative(spec, "failedJobsHistoryLimit", &path, out);
    if let Some(zone) = spec.get("timeZone").and_then(Value::as_str) {
        let at = path.child("timeZone");
        if zone.is_empty() {
            out.push(FieldError::invalid(at, zone, "timeZone must be nil or non-empty string"));
        } else if zone.eq_ignore_ascii_case("local") || jiff::tz::TimeZone::get(zone).is_err() {
            out.push(FieldError::invalid(at, zone, format!("unknown time zone {zone}")));
        }
    }
    job_spec(&spec["jobTemplate"]["spec"], &path.child("jobTemplate").child("spec"), out);
}

/// What is wrong with a cron schedule, roughly in the words of upstream's parser.
fn schedule_error(schedule: &str) -> Option<String> {
    let text =
        schedule.split_once(' ').filter(|(head, _)| head.contains("TZ=")).map_or(schedule, |(_, rest)| rest);
    if let Some(descriptor) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = descriptor.starts_with("every ");
        return (!known.contains(&descriptor) && !every).then(|| format!("unrecognized descriptor: {text}"));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &months), (0, 6, &days)];
    fields
        .iter()
        .zip(bounds)
        .flat_map(|(f, b)| f.split(',').map(move |p| (p, b)))
        .find_map(|(p, b)| range_error(p, b))
}

fn range_error(part: &str, (min, max, words): (u32, u32, &[&str])) -> Option<String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = words.iter().position(|w| text.eq_ignore_ascii_case(w)) {
            return Ok(at as u32 + min);
        }
        text.parse().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
        })
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
    if let Some(step) = step {
        match number(step) {
            Err(e) => return Some(e),
            Ok(0) => return Some(format!("step of range should be a positive number: {part}")),
            Ok(_) => {}
        }
    }
    if matches!(range, "*" | "?") {
        return None;
    }
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    match (number(low), number(high)) {
        (Err(e), _) | (_, Err(e)) => Some(e),
        (Ok(low), _) if low < min => {
            Some(format!("beginning of range ({low}) below minimum ({min}): {part}"))
        }
        (_, Ok(high)) if high > max => Some(format!("end of range ({high}) above maximum ({max}): {part}")),
        (Ok(low), Ok(high)) if low > high => {
            Some(format!("beginning of range ({low}) beyond end of range ({high}): {part}"))
        }
        _ => None,
    }
}

pub(super) fn autoscaler(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    let number = |field: &str| spec.get(field).and_then(Value::as_i64);
    let (min, max) = (number("minReplicas").unwrap_or(1), number("maxReplicas").unwrap_or(0));
    if min < 1 {
        out.push(FieldError::invalid(path.child("minReplicas"), min, "must be greater than or equal to 1"));
    }
    if max < 1 {
        out.push(FieldError::invalid(path.child("maxReplicas"), max, "must be greater than 0"));
    }
    if max < min {
        out.push(FieldError::invalid(
            path.child("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    for field in ["kind", "name"] {
        super::required_text(&spec["scaleTargetRef"], field, &path.child("scaleTargetRef"), out);
    }
}

pub(super) fn disruption_budget(object: &Value, out: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let message = "minAvailable and maxUnavailable cannot be both set";
        out.push(FieldError::invalid(&path, spec.clone(), message));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if let Some(n) = spec.get(field).and_then(amount).filter(|n| *n < 0) {
            out.push(FieldError::invalid(path.child(field), n, super::NON_NEGATIVE));
        }
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    if let Some(policy) = spec["unhealthyPodEvictionPolicy"].as_str().filter(|one| !policies.contains(one)) {
        let field = path.child("unhealthyPodEvictionPolicy");
        out.push(FieldError::not_supported(field, policy, &policies));
    }
    label_selector(&spec["selector"], &path.child("selector"), out);
}

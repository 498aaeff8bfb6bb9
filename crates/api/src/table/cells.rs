//! The cells of each kind's rows.

mod kinds;
mod words;

use jiff::Timestamp;
use serde_json::Value;

use self::kinds::{
    autoscaler_targets, certificate_condition, endpoints, event, external_ip, few, job, node, service_ports,
};
use self::words::{
    NONE, UNSET, access_modes, boolean, entries, int, join_or, map_text, or, scalar, selector_text,
};
use super::pod;
use crate::{
    duration,
    meta::{self, items, list, str_at, str_of},
    scheme::Resource,
};

/// The cells of one row, in the order of the columns.
pub(super) fn of(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = Value::from(meta::name(object));
    let since = |pointer: &str| duration::since(meta::parse_time(str_at(object, pointer)), now);
    let age = || duration::since(meta::creation_timestamp(object), now);
    let text = |pointer: &str| str_at(object, pointer).to_owned();
    macro_rules! row {
        ($($cell:expr),* $(,)?) => { vec![name, $(Value::from($cell)),*] };
    }
    let template = || pod::containers(object.pointer("/spec/template").unwrap_or(&Value::Null));
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::cells(object, age(), now),
        ("", "PodTemplate") => {
            let (names, images) = pod::containers(&object["template"]);
            row![names, images, map_text(object.pointer("/template/metadata/labels"))]
        }
        ("policy", "PodDisruptionBudget") => row![
            scalar(object.pointer("/spec/minAvailable"), "N/A"),
            scalar(object.pointer("/spec/maxUnavailable"), "N/A"),
            int(object, "/status/disruptionsAllowed"),
            age()
        ],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => {
            let (names, images) = template();
            let [desired, current, ready] = counts(object);
            let selector = object.pointer("/spec/selector");
            let selector =
                if resource.group.is_empty() { map_text(selector) } else { selector_text(selector) };
            row![desired, current, ready, age(), names, images, selector]
        }
        ("apps", "DaemonSet") => {
            let (names, images) = template();
            row![
                int(object, "/status/desiredNumberScheduled"),
                int(object, "/status/currentNumberScheduled"),
                int(object, "/status/numberReady"),
                int(object, "/status/updatedNumberScheduled"),
                int(object, "/status/numberAvailable"),
                map_text(object.pointer("/spec/template/spec/nodeSelector")),
                age(),
                names,
                images,
                selector_text(object.pointer("/spec/selector")),
            ]
        }
        ("apps", "Deployment") => {
            let (names, images) = template();
            row![
                format!("{}/{}", int(object, "/status/readyReplicas"), int(object, "/spec/replicas")),
                int(object, "/status/updatedReplicas"),
                int(object, "/status/availableReplicas"),
                age(),
                names,
                images,
                selector_text(object.pointer("/spec/selector")),
            ]
        }
        ("apps", "StatefulSet") => {
            let (names, images) = template();
            row![
                format!("{}/{}", int(object, "/status/readyReplicas"), int(object, "/spec/replicas")),
                age(),
                names,
                images
            ]
        }
        ("apps", "ControllerRevision") => {
            let controller = meta::controller_of(object).map_or(NONE.to_owned(), |owner| {
                let (group, _) = crate::scheme::split_api_version(meta::api_version(owner));
                let kind = str_of(owner, "kind").to_lowercase();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", str_of(owner, "name"))
            });
            row![controller, int(object, "/revision"), age()]
        }
        ("batch", "Job") => job(object, now, age()),
        ("batch", "CronJob") => {
            let (names, images) =
                pod::containers(object.pointer("/spec/jobTemplate/spec/template").unwrap_or(&Value::Null));
            let suspended = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
                Some(true) => "True",
                Some(false) => "False",
                None => UNSET,
            };
            let last = text("/status/lastScheduleTime");
            let last = if last.is_empty() { NONE.to_owned() } else { since("/status/lastScheduleTime") };
            row![
                text("/spec/schedule"),
                or(str_at(object, "/spec/timeZone"), NONE),
                suspended,
                list(object, "/status/active").len(),
                last,
                age(),
                names,
                images,
                selector_text(object.pointer("/spec/jobTemplate/spec/selector")),
            ]
        }
        ("", "Service") => {
            let ip = or(str_at(object, "/spec/clusterIPs/0"), str_at(object, "/spec/clusterIP"));
            row![
                text("/spec/type"),
                or(ip, NONE),
                external_ip(object),
                service_ports(object),
                age(),
                map_text(object.pointer("/spec/selector")),
            ]
        }
        ("", "Endpoints") => row![endpoints(object), age()],
        ("discovery.k8s.io", _) => {
            let ports: Vec<String> =
                items(object, "ports").iter().map(|p| scalar(p.get("port"), "*")).collect();
            let addresses = items(object, "endpoints")
                .iter()
                .flat_map(|e| items(e, "addresses"))
                .filter_map(Value::as_str);
            row![
                text("/addressType"),
                few(ports.into_iter(), UNSET),
                few(addresses.map(str::to_owned), UNSET),
                age()
            ]
        }
        ("", "Node") => node(object, age()),
        (_, "Event") => event(object, now),
        ("", "Namespace") => row![text("/status/phase"), age()],
        ("", "Secret") => row![text("/type"), entries(object, "/data"), age()],
        ("", "ServiceAccount") => row![list(object, "/secrets").len(), age()],
        ("", "ConfigMap") => row![entries(object, "/data") + entries(object, "/binaryData"), age()],
        ("", "ResourceQuota") => {
            let usage = |limits: bool| {
                let hard = object.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten();
                let shown = hard.filter(|(k, _)| k.starts_with("limits.") == limits).map(|(k, v)| {
                    let used = object.pointer("/status/used").and_then(|u| u.get(k));
                    format!("{k}: {}/{}", scalar(used, "0"), scalar(Some(v), "0"))
                });
                shown.collect::<Vec<_>>().join(", ")
            };
            row![usage(false), usage(true), age()]
        }
        ("", "ComponentStatus") => {
            let c = items(object, "conditions").iter().find(|c| str_of(c, "type") == "Healthy");
            let c = c.cloned().unwrap_or_default();
            let status = if str_of(&c, "status") == "True" { "Healthy" } else { "Unhealthy" };
            row![status, str_of(&c, "message"), str_of(&c, "error")]
        }
        ("", "PersistentVolume") => {
            let claim = match (text("/spec/claimRef/namespace"), text("/spec/claimRef/name")) {
                (_, name) if name.is_empty() => String::new(),
                (namespace, name) => format!("{namespace}/{name}"),
            };
            let phase = if meta::is_deleting(object) { "Terminating".into() } else { text("/status/phase") };
            row![
                scalar(object.pointer("/spec/capacity/storage"), ""),
                access_modes(object, "/spec/accessModes"),
                text("/spec/persistentVolumeReclaimPolicy"),
                phase,
                claim,
                text("/spec/storageClassName"),
                or(str_at(object, "/spec/volumeAttributesClassName"), UNSET),
                text("/status/reason"),
                age(),
                or(str_at(object, "/spec/volumeMode"), UNSET),
            ]
        }
        ("", "PersistentVolumeClaim") => {
            let phase = if meta::is_deleting(object) { "Terminating".into() } else { text("/status/phase") };
            let bound = !str_at(object, "/spec/volumeName").is_empty();
            let capacity =
                if bound { scalar(object.pointer("/status/capacity/storage"), "") } else { String::new() };
            let modes = if bound { access_modes(object, "/status/accessModes") } else { String::new() };
            row![
                phase,
                text("/spec/volumeName"),
                capacity,
                modes,
                text("/spec/storageClassName"),
                or(str_at(object, "/spec/volumeAttributesClassName"), UNSET),
                age(),
                or(str_at(object, "/spec/volumeMode"), UNSET),
            ]
        }
        ("autoscaling", "HorizontalPodAutoscaler") => row![
            format!("{}/{}", text("/spec/scaleTargetRef/kind"), text("/spec/scaleTargetRef/name")),
            autoscaler_targets(object),
            scalar(object.pointer("/spec/minReplicas"), UNSET),
            int(object, "/spec/maxReplicas"),
            int(object, "/status/currentReplicas"),
            age()
        ],
        ("networking.k8s.io", "Ingress") => {
            let hosts: Vec<&str> = list(object, "/spec/rules")
                .iter()
                .map(|r| str_of(r, "host"))
                .filter(|h| !h.is_empty())
                .collect();
            let hosts = match hosts.as_slice() {
                [] => "*".to_owned(),
                [first @ .., _] if first.len() >= 3 => {
                    format!("{} + {} more...", hosts[..3].join(","), hosts.len() - 3)
                }
                all => all.join(","),
            };
            let addresses: Vec<&str> = list(object, "/status/loadBalancer/ingress")
                .iter()
                .map(|i| or(str_of(i, "ip"), str_of(i, "hostname")))
                .collect();
            let ports = if list(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
            row![or(str_at(object, "/spec/ingressClassName"), NONE), hosts, addresses.join(","), ports, age()]
        }
        ("networking.k8s.io", "IngressClass") => {
            let parameters = match object.pointer("/spec/parameters") {
                Some(p) => {
                    let group = str_of(p, "apiGroup");
                    let dot = if group.is_empty() { "" } else { "." };
                    format!("{}{dot}{group}/{}", str_of(p, "kind"), str_of(p, "name"))
                }
                None => NONE.into(),
            };
            row![text("/spec/controller"), parameters, age()]
        }
        ("networking.k8s.io", "NetworkPolicy") => {
            row![selector_text(object.pointer("/spec/podSelector")), age()]
        }
        ("networking.k8s.io", "ServiceCIDR") => {
            let cidrs: Vec<String> =
                list(object, "/spec/cidrs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            row![cidrs.join(","), age()]
        }
        ("networking.k8s.io", "IPAddress") => {
            let parts =
                ["group", "resource", "namespace", "name"].map(|f| text(&format!("/spec/parentRef/{f}")));
            let [group, plural, namespace, target] = parts;
            let head = if group.is_empty() { plural } else { format!("{plural}.{group}") };
            let target = if namespace.is_empty() { target } else { format!("{namespace}/{target}") };
            row![format!("{head}/{target}"), age()]
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            let of = |kind: &str| {
                let subjects = items(object, "subjects").iter().filter(|s| str_of(s, "kind") == kind);
                let shown = subjects.map(|s| match (kind, str_of(s, "namespace")) {
                    ("ServiceAccount", namespace) => format!("{namespace}/{}", str_of(s, "name")),
                    _ => str_of(s, "name").to_owned(),
                });
                shown.collect::<Vec<_>>().join(", ")
            };
            let role = format!("{}/{}", text("/roleRef/kind"), text("/roleRef/name"));
            row![role, age(), of("User"), of("Group"), of("ServiceAccount")]
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => row![or(str_at(object, "/spec/signerName"), NONE)],
        ("certificates.k8s.io", _) => {
            let seconds = object.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
            let requested = seconds.map_or(NONE.to_owned(), duration::human);
            row![
                age(),
                or(str_at(object, "/spec/signerName"), NONE),
                text("/spec/username"),
                requested,
                certificate_condition(object)
            ]
        }
        ("coordination.k8s.io", _) => row![text("/spec/holderIdentity"), age()],
        ("storage.k8s.io", "StorageClass") => {
            let default = [
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ]
            .iter()
            .any(|key| meta::annotation(object, key) == Some("true"));
            let shown =
                if default { format!("{} (default)", meta::name(object)) } else { meta::name(object).into() };
            let expansion = object.pointer("/allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false);
            vec![
                shown.into(),
                text("/provisioner").into(),
                or(str_at(object, "/reclaimPolicy"), "Delete").into(),
                or(str_at(object, "/volumeBindingMode"), "Immediate").into(),
                expansion.into(),
                age().into(),
            ]
        }
        ("storage.k8s.io", "VolumeAttributesClass") => row![text("/driverName"), age()],
        ("storage.k8s.io", "VolumeAttachment") => row![
            text("/spec/attacher"),
            text("/spec/source/persistentVolumeName"),
            text("/spec/nodeName"),
            object.pointer("/status/attached").and_then(Value::as_bool).unwrap_or(false),
            age()
        ],
        ("storage.k8s.io", "CSINode") => row![list(object, "/spec/drivers").len(), age()],
        ("storage.k8s.io", "CSIDriver") => {
            let words = |pointer: &str, field: Option<&str>| {
                let items = list(object, pointer).iter();
                let shown =
                    items.filter_map(|i| field.map_or(Some(i), |f| i.get(f))).filter_map(Value::as_str);
                shown.map(str::to_owned).collect::<Vec<_>>()
            };
            row![
                boolean(object, "/spec/attachRequired"),
                boolean(object, "/spec/podInfoOnMount"),
                boolean(object, "/spec/storageCapacity"),
                join_or(words("/spec/tokenRequests", Some("audience")), UNSET),
                boolean(object, "/spec/requiresRepublish"),
                join_or(words("/spec/volumeLifecycleModes", None), NONE),
                age(),
            ]
        }
        ("scheduling.k8s.io", _) => row![
            int(object, "/value"),
            object.pointer("/globalDefault").and_then(Value::as_bool).unwrap_or(false),
            age(),
            or(str_at(object, "/preemptionPolicy"), "PreemptLowerPriority")
        ],
        ("node.k8s.io", _) => row![text("/handler"), age()],
        ("admissionregistration.k8s.io", kind) if kind.ends_with("WebhookConfiguration") => {
            row![items(object, "webhooks").len(), age()]
        }
        ("admissionregistration.k8s.io", kind) if kind.ends_with("Policy") => {
            let rules = if kind.starts_with('M') { "/spec/mutations" } else { "/spec/validations" };
            let param = match object.pointer("/spec/paramKind") {
                Some(p) => format!("{}/{}", str_of(p, "apiVersion"), str_of(p, "kind")),
                None => UNSET.into(),
            };
            row![list(object, rules).len(), param, age()]
        }
        ("admissionregistration.k8s.io", _) => {
            let param = match object.pointer("/spec/paramRef") {
                Some(p) if str_of(p, "namespace").is_empty() => str_of(p, "name").to_owned(),
                Some(p) => format!("{}/{}", str_of(p, "namespace"), str_of(p, "name")),
                None => UNSET.into(),
            };
            row![text("/spec/policyName"), param, age()]
        }
        _ => row![text("/metadata/creationTimestamp")],
    }
}

fn counts(object: &Value) -> [i64; 3] {
    [int(object, "/spec/replicas"), int(object, "/status/replicas"), int(object, "/status/readyReplicas")]
}

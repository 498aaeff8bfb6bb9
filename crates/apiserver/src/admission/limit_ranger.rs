//! LimitRanger: the defaults and bounds that the LimitRanges of a namespace set for containers, pods and claims.

use async_trait::async_trait;
use sampan_api::{
    Quantity, Status, meta,
    resources::{self, ResourceList},
    scheme,
};
use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin};

/// Says which defaults a pod got.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        for range in ranges(attributes).await? {
            apply_defaults(&range, &mut attributes.object);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resizes = attributes.is_core("pods") && attributes.scope.subresource == "resize";
        let pod = attributes.is("pods") && attributes.operation == Operation::Create || resizes;
        let claim = attributes.is("persistentvolumeclaims") && attributes.operation != Operation::Delete;
        if !pod && !claim {
            return Ok(());
        }
        for range in ranges(attributes).await? {
            let mut problems = Vec::new();
            for item in meta::list(&range, "/spec/limits") {
                match (meta::str_of(item, "type"), pod) {
                    ("Container", true) => containers(&attributes.object)
                        .for_each(|container| check_container(item, container, &mut problems)),
                    ("Pod", true) => check_pod(item, &attributes.object, &mut problems),
                    ("PersistentVolumeClaim", false) => check_claim(item, &attributes.object, &mut problems),
                    _ => {}
                }
            }
            match problems.as_slice() {
                [] => {}
                [one] => return Err(attributes.forbidden(one)),
                many => return Err(attributes.forbidden(format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

async fn ranges(attributes: &Attributes<'_>) -> Result<Vec<Value>, Status> {
    let registry = &attributes.scope.server.registry;
    let cache = scheme::find("", "v1", "limitranges").and_then(|resource| registry.cache(resource));
    let Some(cache) = cache else { return Ok(Vec::new()) };
    registry.catch_up().await?;
    let found = cache.snapshot(attributes.scope.namespace, 0).objects;
    Ok(found.iter().map(|range| range.value()).collect())
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    meta::list(pod, "/spec/containers").iter().chain(meta::list(pod, "/spec/initContainers"))
}

/// Requests and limits for containers that lack them. The annotation says what was set.
fn apply_defaults(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in
        meta::list(range, "/spec/limits").iter().filter(|item| meta::str_of(item, "type") == "Container")
    {
        let entries = |field: &str| item.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
        requests.extend(entries("defaultRequest"));
        limits.extend(entries("default"));
    }
    let mut set = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let name = meta::str_of(container, "name").to_owned();
            for (field, word, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)]
            {
                if defaults.is_empty() {
                    continue;
                }
                let resources = meta::object_mut(container).entry("resources").or_insert(Value::Null);
                let given = meta::object_mut(resources).entry(field).or_insert(Value::Null);
                let given = meta::object_mut(given);
                let new: Vec<&str> =
                    defaults.keys().map(String::as_str).filter(|name| !given.contains_key(*name)).collect();
                if !new.is_empty() {
                    set.push(format!("{} {word} for {kind} {name}", new.join(", ")));
                }
                for (name, quantity) in defaults {
                    given.entry(name.clone()).or_insert_with(|| quantity.clone());
                }
            }
        }
    }
    if !set.is_empty() {
        meta::set_annotation(pod, ANNOTATION, &format!("LimitRanger plugin set: {}", set.join("; ")));
    }
}

/// A bound for one resource, and what an object has of it.
struct Bound<'a> {
    /// `Container`, `Pod`, `PersistentVolumeClaim`.
    of: &'a str,
    resource: &'a str,
    bound: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
}

impl<'a> Bound<'a> {
    fn all(item: &'a Value, field: &str, requests: &ResourceList, limits: &ResourceList) -> Vec<Self> {
        let bounds = item.get(field).and_then(Value::as_object).into_iter().flatten();
        bounds
            .map(|(resource, bound)| Self {
                of: meta::str_of(item, "type"),
                resource,
                bound: Quantity::or_zero(Some(bound)),
                request: requests.get(resource).copied(),
                limit: limits.get(resource).copied(),
            })
            .collect()
    }

    fn minimum(&self) -> Option<String> {
        let text = format!("minimum {} usage per {} is {}", self.resource, self.of, self.bound);
        match (self.request, self.limit) {
            (None, _) => Some(format!("{text}.  No request is specified")),
            (Some(request), _) if request < self.bound => Some(format!("{text}, but request is {request}")),
            (_, Some(limit)) if limit < self.bound => Some(format!("{text}, but limit is {limit}")),
            _ => None,
        }
    }

    fn maximum(&self) -> Option<String> {
        let text = format!("maximum {} usage per {} is {}", self.resource, self.of, self.bound);
        match (self.request, self.limit) {
            (_, None) => Some(format!("{text}.  No limit is specified")),
            (_, Some(limit)) if limit > self.bound => Some(format!("{text}, but limit is {limit}")),
            (Some(request), _) if request > self.bound => Some(format!("{text}, but request is {request}")),
            _ => None,
        }
    }

    /// Claims have requests only.
    fn maximum_request(&self) -> Option<String> {
        let text = format!("maximum {} usage per {} is {}", self.resource, self.of, self.bound);
        match self.request {
            None => Some(format!("{text}.  No request is specified")),
            Some(request) if request > self.bound => Some(format!("{text}, but request is {request}")),
            Some(_) => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a ratio is shown with six digits")]
    fn ratio(&self) -> Option<String> {
        let text = format!("{} max limit to request ratio per {} is {}", self.resource, self.of, self.bound);
        let given = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
        let Some(request) = given(self.request) else {
            return Some(format!("{text}, but no request is specified or request is 0"));
        };
        let Some(limit) = given(self.limit) else {
            return Some(format!("{text}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.nanos() as f64 / request.nanos() as f64;
        let most = self.bound.nanos() as f64 / 1e9;
        (ratio > most).then(|| format!("{text}, but provided ratio is {ratio:.6}"))
    }
}

fn check_amounts(item: &Value, requests: &ResourceList, limits: &ResourceList, problems: &mut Vec<String>) {
    let all = |field: &str| Bound::all(item, field, requests, limits);
    problems.extend(all("min").iter().filter_map(Bound::minimum));
    problems.extend(all("max").iter().filter_map(Bound::maximum));
    problems.extend(all("maxLimitRequestRatio").iter().filter_map(Bound::ratio));
}

fn check_container(item: &Value, container: &Value, problems: &mut Vec<String>) {
    check_amounts(
        item,
        &resources::container_requests(container),
        &resources::container_limits(container),
        problems,
    );
}

/// The pod's sums, without its overhead: that is not the user's.
fn check_pod(item: &Value, pod: &Value, problems: &mut Vec<String>) {
    let mut pod = pod.clone();
    meta::object_mut(&mut pod["spec"]).remove("overhead");
    check_amounts(item, &resources::pod_requests(&pod), &resources::pod_limits(&pod), problems);
}

fn check_claim(item: &Value, claim: &Value, problems: &mut Vec<String>) {
    let requests = resources::parse(claim.pointer("/spec/resources/requests"));
    let all = |field: &str| Bound::all(item, field, &requests, &requests);
    problems.extend(all("min").iter().filter_map(Bound::minimum));
    problems.extend(all("max").iter().filter_map(Bound::maximum_request));
}

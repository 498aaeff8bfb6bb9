//! `metrics.k8s.io/v1beta1`: what `kubectl top` asks. Upstream leaves it to an aggregated server; here it is
//! part of the API server, which asks the kubelets' summaries the way it passes on `nodes/proxy`.
//!
//! Nothing is asked while nobody wants to know: an answer is at most [`FRESH`] old, and rates are those between
//! the last two looks.

mod samples;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sampan_api::selector::LabelSelector;
use sampan_api::{Resource, Status, meta, scheme};
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::respond::{self, Response};
use crate::{ApiServer, proxy};
use samples::{Rates, Sample, Samples};

/// The group, for discovery and routing.
pub(crate) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(15);
/// A look that is older than this says nothing about now.
const STALE: Duration = Duration::from_secs(120);
/// How long the first two looks are apart.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// A node's summary is bounded.
const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";

const fn resource(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    namespaced: bool,
) -> Resource {
    Resource {
        group: GROUP,
        version: VERSION,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced,
        verbs: &["get", "list"],
        subresources: &[],
        storage_version_hash: "",
    }
}

/// What discovery tells of the group; nothing of it is ever stored.
pub(crate) static RESOURCES: [Resource; 2] =
    [resource("NodeMetrics", "nodes", "", false), resource("PodMetrics", "pods", "", true)];

/// What is remembered of each node between requests.
#[derive(Default)]
pub struct MetricsApi {
    nodes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Samples>>>>,
}

impl MetricsApi {
    fn of(&self, node: &str) -> Arc<tokio::sync::Mutex<Samples>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(nodes.entry(node.to_owned()).or_default())
    }

    fn retain(&self, known: &[Value]) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|name, _| known.iter().any(|node| meta::name(node) == name));
    }
}

/// Answers a request of the group.
pub(crate) async fn serve(server: Arc<ApiServer>, context: RequestContext) -> Response {
    match answer(&server, &context).await {
        Ok(value) => respond::json(200, &value),
        Err(status) => respond::status(&status),
    }
}

async fn answer(server: &ApiServer, context: &RequestContext) -> Result<Value, Status> {
    let info = &context.info;
    if info.version != VERSION || !info.subresource.is_empty() {
        return Err(Status::path_not_found());
    }
    if !matches!(info.verb.as_str(), "get" | "list") {
        return Err(Status::method_not_allowed());
    }
    let selector = LabelSelector::parse(&info.label_selector)
        .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
    match info.resource.as_str() {
        "nodes" if info.namespace.is_empty() => nodes(server, context, &selector).await,
        "pods" => pods(server, context, &selector).await,
        _ => Err(Status::path_not_found()),
    }
}

/// The core objects of a resource, as far as they are asked for.
async fn objects(
    server: &ApiServer,
    plural: &str,
    namespace: &str,
    selector: &LabelSelector,
) -> Result<Vec<Value>, Status> {
    server.registry.catch_up().await?;
    let resource = scheme::find("", "v1", plural).ok_or_else(Status::path_not_found)?;
    let cache = server.registry.cache(resource).ok_or_else(Status::path_not_found)?;
    let objects = cache.snapshot(namespace, 0).objects;
    Ok(objects.iter().map(|object| object.value()).filter(|object| selector.matches(object)).collect())
}

async fn nodes(
    server: &ApiServer,
    context: &RequestContext,
    selector: &LabelSelector,
) -> Result<Value, Status> {
    let name = &context.info.name;
    let all = objects(server, "nodes", "", &LabelSelector::everything()).await?;
    server.metrics_api.retain(&all);
    let wanted =
        all.iter().filter(|node| selector.matches(node) && (name.is_empty() || meta::name(node) == name));
    let looks = wanted.map(|node| async move { (node, rates(server, meta::name(node)).await) });
    let mut items = Vec::new();
    for (node, rates) in futures::future::join_all(looks).await {
        let Some((rates, usage)) = rates.and_then(|rates| Some((rates.clone(), rates.node?))) else {
            continue;
        };
        items.push(json!({
            "kind": "NodeMetrics",
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": metadata(node),
            "timestamp": meta::format_time(rates.at),
            "window": window(rates.window),
            "usage": usage.to_value(),
        }));
    }
    finish("NodeMetricsList", context, items, || Status::not_found(GROUP, "nodemetrics", name))
}

async fn pods(
    server: &ApiServer,
    context: &RequestContext,
    selector: &LabelSelector,
) -> Result<Value, Status> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let mut by_node: HashMap<String, Vec<Value>> = HashMap::new();
    for pod in objects(server, "pods", namespace, selector).await? {
        let node = meta::str_at(&pod, "/spec/nodeName").to_owned();
        let running = meta::str_at(&pod, "/status/phase") == "Running";
        if running && !node.is_empty() && (name.is_empty() || meta::name(&pod) == name) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let looks = by_node.into_iter().map(|(node, pods)| async move { (pods, rates(server, &node).await) });
    let mut items = Vec::new();
    for (pods, rates) in futures::future::join_all(looks).await {
        let Some(rates) = rates else { continue };
        for pod in pods {
            let Some(containers) = rates.pods.get(meta::uid(&pod)).filter(|list| !list.is_empty()) else {
                continue;
            };
            let containers: Vec<Value> = containers
                .iter()
                .map(|(name, usage)| json!({"name": name, "usage": usage.to_value()}))
                .collect();
            items.push(json!({
                "kind": "PodMetrics",
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "metadata": metadata(&pod),
                "timestamp": meta::format_time(rates.at),
                "window": window(rates.window),
                "containers": containers,
            }));
        }
    }
    items.sort_by_key(|item| {
        (item["metadata"]["namespace"].to_string(), item["metadata"]["name"].to_string())
    });
    finish("PodMetricsList", context, items, || {
        Status::not_found(GROUP, "podmetrics", &format!("{namespace}/{name}"))
    })
}

/// One object for a `get`, else the list.
fn finish(
    kind: &str,
    context: &RequestContext,
    items: Vec<Value>,
    missing: impl Fn() -> Status,
) -> Result<Value, Status> {
    if context.info.verb == "get" {
        return items.into_iter().next().ok_or_else(missing);
    }
    Ok(json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items}))
}

fn metadata(object: &Value) -> Value {
    let mut metadata =
        json!({"name": meta::name(object), "creationTimestamp": meta::format_time(Timestamp::now())});
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    metadata
}

fn window(window: Duration) -> String {
    format!("{:.3}s", window.as_secs_f64())
}

/// What a node used lately; `None` when its kubelet says nothing.
async fn rates(server: &ApiServer, node: &str) -> Option<Rates> {
    let samples = server.metrics_api.of(node);
    let mut samples = samples.lock().await;
    if samples.age().is_none_or(|age| age >= FRESH) {
        if samples.age().is_none_or(|age| age >= STALE) {
            *samples = Samples::default();
            samples.add(look(server, node).await?);
            tokio::time::sleep(FIRST_WINDOW).await;
        }
        samples.add(look(server, node).await?);
    }
    samples.rates()
}

async fn look(server: &ApiServer, node: &str) -> Option<Sample> {
    match proxy::kubelet_json(server, node, SUMMARY).await {
        Ok(summary) => Some(Sample::read(&summary)),
        Err(status) => {
            tracing::warn!(node, message = status.message, "the kubelet gives no summary");
            None
        }
    }
}

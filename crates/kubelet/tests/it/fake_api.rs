//! An API server that fits on a page: objects in a map, lists, watches, status patches, deletions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

struct Objects {
    version: u64,
    /// By path: `/api/v1/namespaces/default/pods/p`.
    by_path: BTreeMap<String, Value>,
}

/// Shared by the test and the kubelet's client.
#[derive(Clone)]
pub(crate) struct FakeApi {
    objects: Arc<Mutex<Objects>>,
    /// (collection such as `pods`, event as a JSON line).
    events: broadcast::Sender<(String, String)>,
    /// Every write: method and path.
    pub(crate) writes: Arc<Mutex<Vec<String>>>,
    /// Answers nothing but 503 as long as it is set.
    pub(crate) down: Arc<AtomicBool>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let objects = Arc::new(Mutex::new(Objects { version: 1, by_path: BTreeMap::new() }));
        Self { objects, events: broadcast::Sender::new(1_000), writes: Arc::default(), down: Arc::default() }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let this = this.clone();
            async move { Ok::<_, std::convert::Infallible>(this.handle(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Stores an object and tells watchers.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        let kind = if objects.by_path.contains_key(path) { "MODIFIED" } else { "ADDED" };
        objects.by_path.insert(path.to_owned(), object.clone());
        drop(objects);
        self.tell(path, kind, &object);
        object
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().by_path.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let removed = self.objects.lock().unwrap().by_path.remove(path);
        if let Some(object) = &removed {
            self.tell(path, "DELETED", object);
        }
        removed
    }

    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let objects = self.objects.lock().unwrap();
        objects
            .by_path
            .iter()
            .filter(|(path, _)| collection_of(path) == collection)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// Every status that the object at `path` gets from now on.
    pub(crate) fn statuses(&self, path: &str) -> Arc<Mutex<Vec<Value>>> {
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let (name, mut events) = (path.rsplit('/').next().unwrap().to_owned(), self.events.subscribe());
        let statuses = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((_, line)) = events.recv().await {
                let event: Value = serde_json::from_str(&line).unwrap();
                if event["object"]["metadata"]["name"] == name.as_str() {
                    statuses.lock().unwrap().push(event["object"]["status"].clone());
                }
            }
        });
        seen
    }

    fn tell(&self, path: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let _ = self.events.send((collection_of(path).to_owned(), line));
    }

    async fn handle(&self, request: Request<kube::client::Body>) -> Response<Body> {
        if self.down.load(Ordering::Relaxed) {
            return status(503, "ServiceUnavailable");
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if parts.method != Method::GET {
            self.writes.lock().unwrap().push(format!("{} {path}", parts.method));
        }
        match parts.method {
            Method::GET if query.contains("watch=") => self.watch(&path, only(&query)),
            Method::GET => match self.get(&path) {
                Some(object) => answer(200, &object),
                None if is_collection(&path) => {
                    let collection = path.rsplit('/').next().unwrap();
                    let version = self.objects.lock().unwrap().version.to_string();
                    let mut items = self.list(collection);
                    let only = only(&query);
                    items.retain(|item| only.as_ref().is_none_or(|name| item["metadata"]["name"] == **name));
                    answer(
                        200,
                        &json!({"apiVersion": "v1", "kind": "List",
                        "metadata": {"resourceVersion": version}, "items": items}),
                    )
                }
                None => not_found(),
            },
            Method::POST if path.ends_with("/token") => answer(
                201,
                &json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": body["spec"],
                "status": {"token": "the-token", "expirationTimestamp": "2026-01-01T01:00:00Z"}}),
            ),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let path = format!("{path}/{name}");
                if self.get(&path).is_some() {
                    return status(409, "AlreadyExists");
                }
                let mut body = body;
                if body["metadata"]["uid"].is_null() {
                    let version = self.objects.lock().unwrap().version;
                    body["metadata"]["uid"] = json!(format!("made-{version}"));
                }
                answer(201, &self.put(&path, body))
            }
            Method::PATCH => {
                let target = path.trim_end_matches("/status");
                let Some(mut object) = self.get(target) else { return not_found() };
                let uid = &body["metadata"]["uid"];
                if uid.is_string() && *uid != object["metadata"]["uid"] {
                    return status(409, "Precondition failed: UID in precondition: a, UID in object meta: b");
                }
                merge(&mut object, &body);
                answer(200, &self.put(target, object))
            }
            Method::DELETE => match self.remove(&path) {
                Some(object) => answer(200, &object),
                None => not_found(),
            },
            _ => status(405, "MethodNotAllowed"),
        }
    }

    fn watch(&self, path: &str, only: Option<String>) -> Response<Body> {
        let wanted = path.rsplit('/').next().unwrap().to_owned();
        let lines = BroadcastStream::new(self.events.subscribe()).filter_map(move |event| {
            let (wanted, only) = (wanted.clone(), only.clone());
            async move {
                let (collection, line) = event.ok()?;
                let is = |name: &String| {
                    let event: Value = serde_json::from_str(&line).unwrap();
                    event["object"]["metadata"]["name"] == **name
                };
                (collection == wanted && only.as_ref().is_none_or(is))
                    .then(|| Ok(Frame::data(Bytes::from(line))))
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// The name that a field selector asks for.
fn only(query: &str) -> Option<String> {
    let name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"))?;
    Some(name.to_owned())
}

fn is_collection(path: &str) -> bool {
    matches!(
        path.rsplit('/').next(),
        Some("pods" | "services" | "nodes" | "events" | "configmaps" | "secrets" | "serviceaccounts")
    )
}

fn collection_of(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or_default()
}

/// Enough of a strategic merge: objects merge, conditions merge by type, other lists are replaced.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                target.as_object_mut().unwrap().remove(key);
            }
            ("conditions", Value::Array(new)) => {
                let mut conditions = target[key].as_array().cloned().unwrap_or_default();
                for condition in new {
                    if condition["$patch"] == "delete" {
                        conditions.retain(|old| old["type"] != condition["type"]);
                        continue;
                    }
                    match conditions.iter_mut().find(|old| old["type"] == condition["type"]) {
                        Some(old) => merge(old, condition),
                        None => conditions.push(condition.clone()),
                    }
                }
                target[key] = Value::Array(conditions);
            }
            (_, Value::Array(list)) => {
                target[key] = list.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
            }
            _ => merge(&mut target[key], value),
        }
    }
}

fn answer(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn status(code: u16, message: &str) -> Response<Body> {
    answer(
        code,
        &json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": message, "message": message, "metadata": {}}),
    )
}

fn not_found() -> Response<Body> {
    status(404, "NotFound")
}

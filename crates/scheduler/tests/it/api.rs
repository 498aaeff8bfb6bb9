//! The part of the API that the scheduler uses, in memory: lists, watches, bindings, events, status patches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

struct State {
    revision: u64,
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    changes: broadcast::Sender<(String, Value)>,
    /// Events and status patches, as they were written.
    pub(crate) events: Vec<Value>,
    pub(crate) patches: Vec<Value>,
    /// How many bindings are refused before they work.
    pub(crate) refuse_bindings: usize,
    /// The same for deletions of pods.
    pub(crate) refuse_deletions: usize,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let (changes, _) = broadcast::channel(1024);
        Self(Arc::new(Mutex::new(State {
            revision: 10,
            objects: BTreeMap::new(),
            changes,
            events: Vec::new(),
            patches: Vec::new(),
            refuse_bindings: 0,
            refuse_deletions: 0,
        })))
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn refuse_bindings(&self, times: usize) {
        self.0.lock().unwrap().refuse_bindings = times;
    }

    pub(crate) fn refuse_deletions(&self, times: usize) {
        self.0.lock().unwrap().refuse_deletions = times;
    }

    pub(crate) fn events(&self, reason: &str) -> Vec<Value> {
        let state = self.0.lock().unwrap();
        state.events.iter().filter(|event| event["reason"] == reason).cloned().collect()
    }

    pub(crate) fn patches(&self) -> Vec<Value> {
        self.0.lock().unwrap().patches.clone()
    }

    pub(crate) fn node_of(&self, pod: &str) -> Option<String> {
        let state = self.0.lock().unwrap();
        let pod = state.objects.get(&("pods".to_owned(), pod.to_owned()))?;
        pod["spec"]["nodeName"].as_str().map(ToOwned::to_owned)
    }

    pub(crate) fn put(&self, plural: &str, object: Value) {
        self.0.lock().unwrap().put(plural, object);
    }

    pub(crate) fn delete(&self, plural: &str, name: &str) {
        self.0.lock().unwrap().delete(plural, name);
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let path = parts.uri.path();
        let path = path.strip_prefix("/api/v1/").or_else(|| path.strip_prefix("/apis/policy/v1/"));
        let path: Vec<_> = path.unwrap_or_default().split('/').collect();
        let mut state = self.0.lock().unwrap();
        match (&parts.method, &path[..]) {
            (&Method::GET, [plural]) if query.contains("watch=true") => state.watch(plural),
            (&Method::GET, [plural]) => json_answer(StatusCode::OK, &state.list(plural)),
            (&Method::POST, ["namespaces", _, "pods", name, "binding"]) => state.bind(name, &body),
            (&Method::POST, ["namespaces", _, "events"]) => {
                let event: Value = serde_json::from_slice(&body).unwrap();
                state.events.push(event.clone());
                json_answer(StatusCode::CREATED, &event)
            }
            (&Method::PATCH, ["namespaces", _, "events", name]) => {
                let patch: Value = serde_json::from_slice(&body).unwrap();
                let event =
                    state.events.iter_mut().find(|event| event["metadata"]["name"] == **name).unwrap();
                event["series"] = patch["series"].clone();
                let event = event.clone();
                json_answer(StatusCode::OK, &event)
            }
            (&Method::PATCH, ["namespaces", _, "pods", name, "status"]) => {
                state.patches.push(serde_json::from_slice(&body).unwrap());
                let pod = state.objects[&("pods".to_owned(), (*name).to_owned())].clone();
                state.put("pods", pod.clone());
                json_answer(StatusCode::OK, &pod)
            }
            (&Method::DELETE, ["namespaces", _, "pods", name]) if state.refuse_deletions == 0 => {
                state.delete("pods", name);
                json_answer(
                    StatusCode::OK,
                    &json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}),
                )
            }
            (&Method::DELETE, ["namespaces", _, "pods", _]) => {
                state.refuse_deletions -= 1;
                refusal()
            }
            other => panic!("unexpected request {other:?}"),
        }
    }
}

impl State {
    fn put(&mut self, plural: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let key = (plural.to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned());
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key, object.clone());
        let _ = self.changes.send((plural.to_owned(), json!({"type": kind, "object": object})));
    }

    fn delete(&mut self, plural: &str, name: &str) {
        self.revision += 1;
        let mut object = self.objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let _ = self.changes.send((plural.to_owned(), json!({"type": "DELETED", "object": object})));
    }

    fn list(&self, plural: &str) -> Value {
        let of_plural = self.objects.iter().filter(|((of, _), _)| of == plural);
        let items: Vec<_> = of_plural.map(|(_, object)| object.clone()).collect();
        let metadata = json!({"resourceVersion": self.revision.to_string()});
        json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})
    }

    fn watch(&self, plural: &str) -> Answer {
        // A list and the watch after it happen at once here, so nothing is missed between them.
        let receiver = self.changes.subscribe();
        let plural = plural.to_owned();
        let lines = stream::unfold(receiver, |mut receiver| async move {
            let change = receiver.recv().await.ok()?;
            Some((change, receiver))
        });
        let frames = lines.filter_map(move |(of, event)| {
            let line = (of == plural).then(|| Ok(Frame::data(format!("{event}\n").into())));
            async move { line }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
    }

    fn bind(&mut self, name: &str, body: &[u8]) -> Answer {
        if self.refuse_bindings > 0 {
            self.refuse_bindings -= 1;
            return refusal();
        }
        let binding: Value = serde_json::from_slice(body).unwrap();
        let mut pod = self.objects[&("pods".to_owned(), name.to_owned())].clone();
        assert_eq!(pod["metadata"]["uid"], binding["metadata"]["uid"]);
        assert!(pod["spec"]["nodeName"].is_null(), "bound twice");
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.put("pods", pod);
        json_answer(StatusCode::CREATED, &json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}))
    }
}

fn refusal() -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 500,
        "reason": "InternalError", "message": "no",
    });
    json_answer(StatusCode::INTERNAL_SERVER_ERROR, &status)
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

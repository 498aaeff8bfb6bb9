//! A server in a directory of its own, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use sampan_apiserver::admission::AdmissionConfig;
use sampan_apiserver::pki::PkiConfig;
use sampan_apiserver::{ApiServer, Config, Pki, UserInfo};
use sampan_store::embedded::Embedded;
use serde_json::{Value, json};

pub struct Api {
    pub server: Arc<ApiServer>,
    pub client: kube::Client,
    directory: tempfile::TempDir,
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&self.bytes)))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(AdmissionConfig::default()).await
    }

    pub async fn start_with(admission: AdmissionConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(directory, admission).await
    }

    async fn start_in(directory: tempfile::TempDir, admission: AdmissionConfig) -> Self {
        let pki = PkiConfig {
            node_name: "node-a".into(),
            hostnames: vec![],
            ips: vec![],
            service_ip: Some("10.43.0.1".parse().unwrap()),
            cluster_domain: "cluster.local".into(),
        };
        let store = Embedded::open(&directory.path().join("store")).unwrap();
        let config = Config {
            store,
            pki: Pki::ensure(&directory.path().join("pki"), &pki).unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".into(),
            advertise: ("192.0.2.1".parse().unwrap(), 6443),
            token_auth_file: None,
            admission,
        };
        let server = ApiServer::start(config).await.unwrap();
        let client = server.client(UserInfo::admin());
        let api = Self { server, client, directory };
        let account = json!({"metadata": {"name": "default"}});
        let answer = api.post("/api/v1/namespaces/default/serviceaccounts", account).await;
        assert!(matches!(answer.code, 201 | 409), "{}", answer.message());
        api
    }

    /// The same directory with a new server.
    pub async fn restart(self) -> Self {
        let Self { server, client, directory } = self;
        drop(client);
        drop(server);
        for _ in 0..100 {
            match Embedded::open(&directory.path().join("store")) {
                Ok(store) => {
                    drop(store);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self::start_in(directory, AdmissionConfig::default()).await
    }

    pub async fn send(&self, user: &UserInfo, request: Request<Body>) -> http::Response<Body> {
        self.server.client(user.clone()).send(request).await.unwrap()
    }

    pub async fn call_as(
        &self,
        user: &UserInfo,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(user, request.body(Body::from(body)).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.call_as(&UserInfo::admin(), method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], vec![]).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], vec![]).await
    }

    pub async fn delete_with(&self, path: &str, options: Value) -> Answer {
        self.call(Method::DELETE, path, &[("content-type", "application/json")], options.to_string().into())
            .await
    }

    pub async fn merge(&self, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.call(Method::PATCH, path, &headers, body.to_string().into()).await
    }

    pub async fn watch(&self, path: &str) -> Events {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.send(&UserInfo::admin(), request).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body().into_data_stream().boxed(), buffer: Vec::new() }
    }

    /// Creates a config map and answers its resource version.
    pub async fn config_map(&self, name: &str, labels: Value) -> String {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let made = self.post("/api/v1/namespaces/default/configmaps", object).await.expect(201);
        made["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }

    /// Creates a pod, bound to a node when one is given.
    pub async fn pod(&self, name: &str, node: Option<&str>) -> Value {
        let made = self.post(PODS, pod(name)).await.expect(201);
        if let Some(node) = node {
            let binding = json!({"target": {"kind": "Node", "name": node}});
            self.post(&format!("{PODS}/{name}/binding"), binding).await.expect(201);
        }
        made
    }
}

pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "sampan.local/toolbox"}]}})
}

pub struct Events {
    body: futures::stream::BoxStream<'static, Result<bytes::Bytes, kube::Error>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `null` when the watch ends.
    pub async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            match tokio::time::timeout(Duration::from_secs(20), self.body.next())
                .await
                .expect("no event came")
            {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.unwrap()),
                None => return Value::Null,
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await;
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }

    /// Whether nothing comes for a while.
    pub async fn is_quiet(&mut self) -> bool {
        self.buffer.is_empty()
            && tokio::time::timeout(Duration::from_millis(150), self.body.next()).await.is_err()
    }
}

impl Api {
    /// A watch by a request of any form.
    pub async fn watch_request(&self, request: Request<Body>) -> Events {
        let response = self.send(&UserInfo::admin(), request).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body().into_data_stream().boxed(), buffer: Vec::new() }
    }
}

impl Events {
    /// The next event, however long that takes (for tests on a paused clock).
    pub async fn next_bookmark(&mut self) -> Value {
        let chunk = self.body.next().await.unwrap().unwrap();
        serde_json::from_slice(&chunk).unwrap()
    }
}

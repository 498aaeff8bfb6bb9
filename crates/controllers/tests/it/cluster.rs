//! An API server with controllers, in a directory of its own, and short words for what tests do with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use sampan_api::scheme;
use sampan_apiserver::admission::AdmissionConfig;
use sampan_apiserver::pki::PkiConfig;
use sampan_apiserver::{ApiServer, Config, Pki, UserInfo};
use sampan_controllers::ControllersConfig;
use sampan_store::embedded::Embedded;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const CA: &str = "-----BEGIN CERTIFICATE-----\nthe test's\n-----END CERTIFICATE-----\n";

pub(crate) struct Cluster {
    client: kube::Client,
    shutdown: CancellationToken,
    _server: Arc<ApiServer>,
    _directory: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(ControllersConfig::default()).await
    }

    pub(crate) async fn with(config: ControllersConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = PkiConfig {
            node_name: "n1".into(),
            hostnames: Vec::new(),
            ips: Vec::new(),
            service_ip: None,
            cluster_domain: "cluster.local".into(),
        };
        let server = ApiServer::start(Config {
            store: Embedded::open(&directory.path().join("store")).unwrap(),
            pki: Pki::ensure(&directory.path().join("pki"), &pki).unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".into(),
            advertise: ("127.0.0.1".parse().unwrap(), 6443),
            token_auth_file: None,
            admission: AdmissionConfig::default(),
        })
        .await
        .unwrap();
        let client = server.client(UserInfo::admin());
        let shutdown = CancellationToken::new();
        let config = ControllersConfig { ca_pem: CA.into(), ..config };
        let run = sampan_controllers::run(client.clone(), config, shutdown.clone());
        tokio::spawn(async move { run.await.unwrap() });
        let cluster = Self { client, shutdown, _server: server, _directory: directory };
        cluster.until_there("serviceaccounts", "default", "default").await;
        cluster
    }

    pub(crate) fn api(&self, plural: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = scheme::resources().iter().find(|resource| resource.plural == plural).unwrap();
        let kind = ApiResource {
            group: resource.group.into(),
            version: resource.version.into(),
            api_version: resource.api_version(),
            kind: resource.kind.into(),
            plural: plural.into(),
        };
        match namespace {
            "" => Api::all_with(self.client.clone(), &kind),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &kind),
        }
    }

    /// Creates `object`; returns its uid.
    pub(crate) async fn create(&self, plural: &str, namespace: &str, object: Value) -> String {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let made = self.api(plural, namespace).create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{plural} {object:?}: {error}")).metadata.uid.unwrap()
    }

    pub(crate) async fn namespace(&self, name: &str) {
        self.create("namespaces", "", json!({"metadata": {"name": name}})).await;
        self.until_there("serviceaccounts", name, "default").await;
    }

    pub(crate) async fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<DynamicObject> {
        self.api(plural, namespace).get_opt(name).await.unwrap()
    }

    pub(crate) async fn delete(&self, plural: &str, namespace: &str, name: &str, parameters: &DeleteParams) {
        self.api(plural, namespace).delete(name, parameters).await.unwrap();
    }

    pub(crate) async fn patch(&self, plural: &str, namespace: &str, name: &str, patch: Value) {
        let api = self.api(plural, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn patch_status(&self, plural: &str, namespace: &str, name: &str, status: Value) {
        let api = self.api(plural, namespace);
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn until_there(&self, plural: &str, namespace: &str, name: &str) -> DynamicObject {
        self.until(plural, namespace, name, |found| found.is_some()).await.unwrap()
    }

    pub(crate) async fn until_gone(&self, plural: &str, namespace: &str, name: &str) {
        self.until(plural, namespace, name, |found| found.is_none()).await;
    }

    /// Waits for an object to be as `condition` wants it.
    pub(crate) async fn until(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        condition: impl Fn(Option<&DynamicObject>) -> bool,
    ) -> Option<DynamicObject> {
        let start = Instant::now();
        loop {
            let found = self.get(plural, namespace, name).await;
            if condition(found.as_ref()) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(15), "{plural} {namespace}/{name}: {found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A pod of the built-in image.
pub(crate) fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{
            "name": "c", "image": "sampan.local/toolbox", "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    });
    merge(&mut pod, more);
    pod
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

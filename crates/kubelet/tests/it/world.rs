//! A node with everything around it, and short ways to ask what happened.

use std::sync::Arc;
use std::time::Duration;

use sampan_kubelet::clock::Clock;
use sampan_kubelet::eviction::{Observation, Signal, SignalSource};
use sampan_kubelet::shutdown::ShutdownStep;
use sampan_kubelet::{ImageConfig, Kubelet, KubeletConfig, Serving};
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::fake_runtime::FakeRuntime;

pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) runtime: FakeRuntime,
    kubelet: Option<Kubelet>,
    serving: Option<Serving>,
    pub(crate) clock: Clock,
    images: ImageConfig,
    /// A graceful shutdown, for the next start of the kubelet.
    pub(crate) shutdown: Vec<ShutdownStep>,
    dir: tempfile::TempDir,
    /// What the node has left; of everything enough until a test says otherwise.
    pub(crate) signals: Signals,
    with_api: bool,
}

/// Numbers for the signals of eviction.
#[derive(Clone, Default)]
pub(crate) struct Signals(Arc<std::sync::Mutex<std::collections::BTreeMap<Signal, Observation>>>);

impl Signals {
    pub(crate) fn set(&self, signal: Signal, available: i64, capacity: i64) {
        self.0.lock().unwrap().insert(signal, Observation { available, capacity });
    }

    fn source(&self) -> SignalSource {
        let this = self.clone();
        Arc::new(move || this.0.lock().unwrap().clone())
    }
}

impl Drop for World {
    /// A kubelet that just stops leaves its pods' volumes mounted, as it should; a test does not.
    fn drop(&mut self) {
        let dir = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if target.starts_with(&dir) {
                let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_serving(None).await
    }

    /// A node whose kubelet has its HTTPS port open.
    pub(crate) async fn with_serving(serving: Option<Serving>) -> Self {
        let clock = Clock::following_tokio("2026-01-01T00:00:00Z".parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new(clock.clone(), dir.path().join("logs"));
        let images =
            ImageConfig { credential_search_dirs: Some(vec![dir.path().into()]), ..Default::default() };
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        let signals = Signals::default();
        let api = FakeApi::new();
        let mut world = Self {
            api,
            runtime,
            kubelet: None,
            serving,
            clock,
            images,
            shutdown: Vec::new(),
            dir,
            signals,
            with_api: true,
        };
        world.start_kubelet().await;
        world
    }

    /// A node with this configuration of images.
    pub(crate) async fn with_images(images: ImageConfig) -> Self {
        let mut world = Self::new().await;
        world.images = images;
        world.start_kubelet().await;
        world
    }

    /// A node whose API server does not answer.
    pub(crate) async fn without_api() -> Self {
        let mut world = Self::new().await;
        world.with_api = false;
        world.start_kubelet().await;
        world
    }

    /// Where the node's own credentials are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Where static pods are.
    pub(crate) fn manifests(&self) -> std::path::PathBuf {
        self.dir.path().join("manifests")
    }

    fn client(&self) -> kube::Client {
        if self.with_api {
            return self.api.client();
        }
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no API here"))
        });
        kube::Client::new(service, "default")
    }

    /// The kubelet ends as if it were killed.
    pub(crate) async fn kill_kubelet(&mut self) {
        drop(self.kubelet.take());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Starts a kubelet; an earlier one ends as if it were killed.
    pub(crate) async fn start_kubelet(&mut self) {
        self.kill_kubelet().await;
        let config = KubeletConfig {
            log_dir: self.dir.path().join("logs"),
            container_log_dir: None,
            cgroup_mount: None,
            signals: Some(self.signals.source()),
            static_pod_path: Some(self.dir.path().join("manifests")),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            clock: self.clock.clone(),
            serving: self.serving.clone(),
            images: self.images.clone(),
            shutdown: self.shutdown.clone(),
            ..KubeletConfig::new(
                "node",
                self.client(),
                Arc::new(self.runtime.clone()),
                self.dir.path().join("kubelet"),
                "10.9.9.9".parse().unwrap(),
            )
        };
        self.kubelet = Some(Kubelet::start(config).await.unwrap());
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.kubelet.as_ref().unwrap().address().unwrap()
    }

    pub(crate) async fn shut_down(&mut self, mode: sampan_kubelet::ShutdownMode) {
        self.kubelet.take().unwrap().shutdown(mode).await;
    }

    /// Makes a pod called `p` with this spec on the node.
    pub(crate) fn create(&self, mut spec: Value) {
        spec["nodeName"] = json!("node");
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(30);
        }
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!("local:1");
                    container["imagePullPolicy"] = json!("IfNotPresent");
                }
            }
        }
        self.api.put(
            POD,
            json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "uid-1", "generation": 1},
            "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}),
        );
    }

    /// Makes a Secret of a docker type with a login for `far.io`.
    pub(crate) fn pull_secret(&self, name: &str, user: &str, password: &str) {
        let config = json!({"auths": {"far.io": {"username": user, "password": password}}});
        self.secret(name, &config.to_string());
    }

    /// Makes a Secret whose `.dockerconfigjson` is this.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, content);
        self.api.put(
            &format!("/api/v1/namespaces/default/secrets/{name}"),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "data": {".dockerconfigjson": encoded}}),
        );
    }

    /// A graceful deletion as the API server stores it.
    pub(crate) fn delete(&self, grace: i64) {
        let mut pod = self.pod();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.api.put(POD, pod);
    }

    /// Asks for these resources of the first container, as `kubectl patch --subresource resize` does.
    pub(crate) fn resize(&self, resources: Value) {
        let mut pod = self.pod();
        let generation = pod["metadata"]["generation"].as_i64().unwrap();
        pod["metadata"]["generation"] = json!(generation + 1);
        pod["spec"]["containers"][0]["resources"] = resources;
        self.api.put(POD, pod);
    }

    /// Somebody gives the first container another image.
    pub(crate) fn change_image(&self, image: &str) {
        let mut pod = self.pod();
        let generation = pod["metadata"]["generation"].as_i64().unwrap();
        pod["metadata"]["generation"] = json!(generation + 1);
        pod["spec"]["containers"][0]["image"] = json!(image);
        self.api.put(POD, pod);
    }

    /// The pod's condition of this type.
    pub(crate) fn condition(&self, type_: &str) -> Option<Value> {
        let status = self.status();
        status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_).cloned()
    }

    pub(crate) fn pod(&self) -> Value {
        self.api.get(POD).expect("the pod")
    }

    pub(crate) fn status(&self) -> Value {
        self.pod()["status"].clone()
    }

    /// Waits until `condition` holds; at most an hour of the paused clock.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..360_000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "never: {what}\npod: {:#}\ncalls: {:?}\nevents: {:#?}",
            self.api.get(POD).unwrap_or_default(),
            self.runtime.call_names(),
            self.events()
        );
    }

    pub(crate) async fn until_phase(&self, phase: &str) {
        self.until(phase, |world| world.api.get(POD).is_some_and(|pod| pod["status"]["phase"] == phase))
            .await;
    }

    pub(crate) async fn until_gone(&self) {
        self.until("gone", |world| world.api.get(POD).is_none() && world.runtime.sandboxes() == 0).await;
    }

    /// What `sampan logs --hooks` shows: the files of a container's hooks.
    pub(crate) fn hook_logs(&self, container: &str) -> Vec<(String, String)> {
        let dir = self.dir.path().join(format!("logs/default_p_uid-1/{container}/hooks"));
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        files.sort();
        files
    }

    /// The first container's waiting reason, or empty.
    pub(crate) fn waiting_reason(&self) -> String {
        self.status()["containerStatuses"][0]["state"]["waiting"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The first container's waiting message, or empty.
    pub(crate) fn waiting_message(&self) -> String {
        let waiting = &self.status()["containerStatuses"][0]["state"]["waiting"];
        waiting["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Events about pods as `Type Reason field: message`.
    pub(crate) fn events(&self) -> Vec<String> {
        let mut events: Vec<(u64, String)> = self
            .api
            .list("events")
            .into_iter()
            .filter(|event| event["involvedObject"]["kind"] == "Pod")
            .map(|event| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let line = format!(
                    "{} {} {}: {}",
                    text(&event["type"]),
                    text(&event["reason"]),
                    text(&event["involvedObject"]["fieldPath"]),
                    text(&event["message"])
                );
                (text(&event["metadata"]["resourceVersion"]).parse().unwrap_or(0), line)
            })
            .collect();
        events.sort();
        events.into_iter().map(|(_, line)| line).collect()
    }

    pub(crate) fn has_event(&self, part: &str) -> bool {
        self.events().iter().any(|event| event.contains(part))
    }
}

pub(crate) const POD: &str = "/api/v1/namespaces/default/pods/p";

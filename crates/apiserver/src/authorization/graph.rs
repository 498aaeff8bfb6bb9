//! What belongs to which node: the objects that pods bound to it refer to.
//!
//! A kubelet may read a Secret only because one of its pods needs it. The graph counts, per node, how many pods
//! refer to an object; claims lead on to their volume and the volume to its secrets.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// The kinds of objects that a kubelet reaches through its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    Secret,
    ServiceAccount,
}

/// An object: kind, namespace (empty for volumes), name.
type Vertex = (Kind, String, String);

/// What is known of pods and of volumes.
#[derive(Debug, Default)]
pub(super) struct NodeGraph {
    /// Per node, how many of its pods refer to an object.
    nodes: HashMap<String, HashMap<Vertex, usize>>,
    /// Per pod its node and what it refers to.
    pods: HashMap<Key, (String, Vec<Vertex>)>,
    volumes: HashMap<String, Volume>,
}

/// A namespace and a name.
type Key = (String, String);

/// What a PersistentVolume leads to.
#[derive(Debug)]
struct Volume {
    /// The claim that it is bound to: who reaches the claim reaches the volume.
    claim: Option<Key>,
    /// The secrets that its driver needs.
    secrets: Vec<Key>,
}

impl NodeGraph {
    /// Whether a node may reach an object.
    pub(super) fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let Some(objects) = self.nodes.get(node) else { return false };
        let vertex = (kind, namespace.to_owned(), name.to_owned());
        if objects.contains_key(&vertex) {
            return true;
        }
        match kind {
            Kind::PersistentVolume => self.volume_is_used(objects, name),
            Kind::Secret => self.volumes.iter().any(|(name_of_volume, volume)| {
                volume.secrets.contains(&(namespace.to_owned(), name.to_owned()))
                    && self.volume_is_used(objects, name_of_volume)
            }),
            _ => false,
        }
    }

    fn volume_is_used(&self, objects: &HashMap<Vertex, usize>, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|volume| volume.claim.clone());
        claim.is_some_and(|(namespace, name)| {
            objects.contains_key(&(Kind::PersistentVolumeClaim, namespace, name))
        })
    }

    /// Takes in what became of a pod.
    pub(super) fn apply_pod(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        let node = pod.and_then(|pod| pod["spec"]["nodeName"].as_str()).unwrap_or_default();
        if let Some((old, vertices)) = self.pods.get(&key) {
            // What a pod refers to does not change once it is bound (ephemeral containers aside).
            let grown = pod.is_some_and(|pod| pod["spec"]["ephemeralContainers"].is_array());
            if old == node && !grown {
                return;
            }
            let (old, vertices) = (old.clone(), vertices.clone());
            self.pods.remove(&key);
            self.release(&old, &vertices);
        }
        let Some(pod) = pod.filter(|_| !node.is_empty()) else { return };
        let vertices: Vec<Vertex> = references(namespace, name, pod).into_iter().collect();
        let objects = self.nodes.entry(node.to_owned()).or_default();
        for vertex in &vertices {
            *objects.entry(vertex.clone()).or_default() += 1;
        }
        self.pods.insert(key, (node.to_owned(), vertices));
    }

    fn release(&mut self, node: &str, vertices: &[Vertex]) {
        let Some(objects) = self.nodes.get_mut(node) else { return };
        for vertex in vertices {
            if let Some(count) = objects.get_mut(vertex) {
                *count -= 1;
                if *count == 0 {
                    objects.remove(vertex);
                }
            }
        }
        if objects.is_empty() {
            self.nodes.remove(node);
        }
    }

    /// Takes in what became of a PersistentVolume.
    pub(super) fn apply_volume(&mut self, name: &str, volume: Option<&Value>) {
        let Some(volume) = volume else {
            self.volumes.remove(name);
            return;
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let reference = &volume["spec"]["claimRef"];
        let claim = text(&reference["namespace"]).zip(text(&reference["name"]));
        let mut secrets = Vec::new();
        let claim_namespace = claim.as_ref().map(|(namespace, _)| namespace.as_str()).unwrap_or_default();
        collect_secrets(&volume["spec"], claim_namespace, &mut secrets);
        self.volumes.insert(name.to_owned(), Volume { claim, secrets });
    }
}

/// Secrets that a volume's source names: every `...secretRef` with a name.
fn collect_secrets(value: &Value, namespace: &str, out: &mut Vec<Key>) {
    let Value::Object(fields) = value else { return };
    for (field, value) in fields {
        if field.to_ascii_lowercase().ends_with("secretref") {
            if let Some(name) = value["name"].as_str() {
                let namespace = value["namespace"].as_str().unwrap_or(namespace);
                out.push((namespace.to_owned(), name.to_owned()));
            }
        } else {
            collect_secrets(value, namespace, out);
        }
    }
}

/// Everything that a pod's kubelet has to read for it.
fn references(namespace: &str, name: &str, pod: &Value) -> HashSet<Vertex> {
    let mut out = HashSet::new();
    let mut add = |kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            out.insert((kind, namespace.to_owned(), name.to_owned()));
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    add(Kind::Pod, &Value::from(name));
    // A mirror pod stands for what the node runs anyway: it opens nothing.
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return out;
    }
    let spec = &pod["spec"];
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        add(Kind::Secret, &secret["name"]);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&spec[field]) {
            for env in list(&container["env"]) {
                add(Kind::Secret, &env["valueFrom"]["secretKeyRef"]["name"]);
                add(Kind::ConfigMap, &env["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in list(&container["envFrom"]) {
                add(Kind::Secret, &source["secretRef"]["name"]);
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::PersistentVolumeClaim, &volume["persistentVolumeClaim"]["claimName"]);
        if volume["ephemeral"].is_object() {
            let volume = volume["name"].as_str().unwrap_or_default();
            add(Kind::PersistentVolumeClaim, &Value::from(format!("{name}-{volume}")));
        }
        for source in list(&volume["projected"]["sources"]) {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        for source in ["csi", "flexVolume", "cephfs", "rbd", "iscsi", "scaleIO", "storageos"] {
            for field in ["secretRef", "nodePublishSecretRef"] {
                add(Kind::Secret, &volume[source][field]["name"]);
            }
        }
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
    }
    out
}

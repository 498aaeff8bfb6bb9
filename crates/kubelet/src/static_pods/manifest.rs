//! From a manifest to a static pod: decoded strictly, defaulted, validated, named for the node (POD-49, POD-51).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sampan_api::{defaulting, scheme, validation};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{HASH, SEEN, SOURCE};
use crate::files;

/// The file a static pod was read from: ours, so that an edit with a mistake in it does not end the pod.
pub(super) const FILE: &str = "sampan.dev/config.file";
/// A larger file is no manifest (bytes).
const MAX_BYTES: u64 = 10 << 20;

/// What a directory holds.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) pods: Vec<Pod>,
    /// Files that could not be used, and why.
    pub(super) errors: BTreeMap<PathBuf, String>,
    /// Whether there may be files that were not seen: then nothing is known to be gone.
    pub(super) incomplete: bool,
}

/// Reads a file, or all files of a directory but hidden ones.
pub(super) fn read_all(path: &Path, node: &str, seen: Timestamp) -> Reading {
    let mut reading = Reading::default();
    let files = list(path).unwrap_or_else(|error| {
        reading.incomplete = true;
        reading.errors.insert(path.to_owned(), error.to_string());
        Vec::new()
    });
    for file in files {
        match read(&file, node, seen) {
            Ok(pod) => {
                let same = |other: &Pod| super::full_name(other) == super::full_name(&pod);
                if reading.pods.iter().any(same) {
                    let (namespace, name) = super::full_name(&pod);
                    reading
                        .errors
                        .insert(file, format!("another manifest has the pod {namespace}/{name} already"));
                } else {
                    reading.pods.push(pod);
                }
            }
            Err(error) => {
                reading.errors.insert(file, error);
            }
        }
    }
    reading
}

/// The files; none when there is nothing at `path`.
fn list(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is = |path: &Path| match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    };
    let Some(found) = is(path)? else { return Ok(Vec::new()) };
    if !found.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().to_str().is_none_or(|name| name.starts_with('.'));
        // What cannot be looked at is told of when it is read.
        if !hidden && is(&entry.path()).map_or(true, |found| found.is_some_and(|found| found.is_file())) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path, node: &str, seen: Timestamp) -> Result<Pod, String> {
    let failed = |error: std::io::Error| error.to_string();
    let Some(text) = files::read_text_bounded(file, MAX_BYTES).map_err(failed)? else {
        let size = std::fs::metadata(file).map_err(failed)?.len();
        return Err(format!("{size} bytes are no manifest"));
    };
    parse(&text, file, node, seen)
}

fn parse(text: &str, file: &Path, node: &str, seen: Timestamp) -> Result<Pod, String> {
    let documents = sampan_api::manifest::parse(text).map_err(|error| error.to_string())?;
    let [document] = documents.as_slice() else {
        return Err(format!("one Pod is expected, there are {} objects", documents.len()));
    };
    if (document.object["apiVersion"].as_str(), document.object["kind"].as_str()) != (Some("v1"), Some("Pod"))
    {
        return Err("a Pod (v1) is expected".to_owned());
    }
    let resource = scheme::find("", "v1", "pods").ok_or("no pods in the scheme")?;
    let decoded = sampan_api::schema::decode_value(resource, document.object.clone());
    let mut pod = decoded.map_err(|error| error.to_string())?.object;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    pod["metadata"]["name"] = json!(format!("{name}-{}", node.to_lowercase()));
    if pod["metadata"]["namespace"].as_str().unwrap_or_default().is_empty() {
        pod["metadata"]["namespace"] = json!("default");
    }
    let uid = hash(&document.object, node, file);
    pod["metadata"]["uid"] = json!(uid);
    // Nobody else writes them; what the file says about them is not meant.
    let annotations = &mut pod["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[SOURCE] = json!("file");
    annotations[HASH] = json!(uid);
    annotations[SEEN] = json!(seen.to_string());
    annotations[FILE] = json!(file);
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(super::MIRROR);
    }
    pod["spec"]["nodeName"] = json!(node);
    // A static pod stays whatever the node's taints say.
    let tolerations = &mut pod["spec"]["tolerations"];
    if !tolerations.is_array() {
        *tolerations = json!([]);
    }
    if let Some(tolerations) = tolerations.as_array_mut() {
        tolerations.push(json!({"operator": "Exists", "effect": "NoExecute"}));
    }
    defaulting::apply_defaults(resource, &mut pod);
    if let Some(reference) = api_reference(&pod) {
        return Err(format!("static pods may not reference {reference}"));
    }
    if let Some(error) = validation::validate_create(resource, &pod).first() {
        return Err(error.to_string());
    }
    if let Some(object) = pod.as_object_mut() {
        object.remove("status");
    }
    serde_json::from_value(pod).map_err(|error| error.to_string())
}

/// The UID: of the content, the node and the file, so that it is the same after a restart and another after an
/// edit. 32 hexadecimal digits, as upstream's.
fn hash(manifest: &Value, node: &str, file: &Path) -> String {
    let mut digest = Sha256::new();
    digest.update(manifest.to_string());
    digest.update(format!("host:{node}file:{}", file.display()));
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What of the API the pod refers to, if anything: there may be no API.
fn api_reference(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if !list(&spec["imagePullSecrets"]).is_empty() {
        return Some("secrets");
    }
    if !list(&spec["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    for field in ["containers", "initContainers"] {
        for container in list(&spec[field]) {
            for source in list(&container["envFrom"]) {
                for (key, name) in [("secretRef", "secrets"), ("configMapRef", "configmaps")] {
                    if !source[key].is_null() {
                        return Some(name);
                    }
                }
            }
            for variable in list(&container["env"]) {
                for (key, name) in [("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")] {
                    if !variable["valueFrom"][key].is_null() {
                        return Some(name);
                    }
                }
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        for (key, name) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
        ] {
            if !volume[key].is_null() {
                return Some(name);
            }
        }
        for source in list(&volume["projected"]["sources"]) {
            for (key, name) in [
                ("secret", "secrets"),
                ("configMap", "configmaps"),
                ("serviceAccountToken", "serviceaccounts"),
                ("clusterTrustBundle", "clustertrustbundles"),
            ] {
                if !source[key].is_null() {
                    return Some(name);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: x}]}\n";

    fn read(text: &str, file: &str, node: &str) -> Result<Pod, String> {
        parse(text, Path::new(file), node, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn pod_49_names_and_uids_come_from_content_node_and_file() {
        let pod = read(POD, "/m/a.yaml", "n1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let uid = pod.metadata.uid.clone().unwrap();
        let annotations = pod.metadata.annotations.clone().unwrap();
        assert_eq!((uid.len(), annotations[HASH] == uid, annotations[SOURCE].as_str()), (32, true, "file"));
        assert!(super::super::is_static(&pod) && annotations.contains_key(SEEN));
        let spec = pod.spec.unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("n1"), Some("Always")));
        let again =
            |text: &str, file: &str, node: &str| read(text, file, node).unwrap().metadata.uid.unwrap();
        assert_eq!(again(POD, "/m/a.yaml", "n1"), uid);
        for other in [
            again(&POD.replace("image: x", "image: other"), "/m/a.yaml", "n1"),
            again(POD, "/m/b.yaml", "n1"),
            again(POD, "/m/a.yaml", "n2"),
        ] {
            assert_ne!(other, uid);
        }
    }

    #[test]
    fn pod_51_nothing_of_the_api_may_be_referred_to() {
        for (addition, what) in [
            ("serviceAccountName: x", "serviceaccounts"),
            ("imagePullSecrets: [{name: x}]", "secrets"),
            ("volumes: [{name: v, configMap: {name: x}}]", "configmaps"),
            ("volumes: [{name: v, secret: {secretName: x}}]", "secrets"),
        ] {
            let text = POD.replace("spec: {", &format!("spec: {{{addition}, "));
            assert_eq!(read(&text, "/m", "n").unwrap_err(), format!("static pods may not reference {what}"));
        }
        let env = POD
            .replace("image: x", "image: x, env: [{name: a, valueFrom: {secretKeyRef: {name: s, key: k}}}]");
        assert_eq!(read(&env, "/m", "n").unwrap_err(), "static pods may not reference secrets");
    }

    #[test]
    fn files_that_cannot_be_used_say_why_and_hidden_ones_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.yaml", POD),
            ("b.yaml", POD),
            ("c.yaml", "kind: Service\napiVersion: v1\n"),
            ("d.yaml", "{"),
            (".e.yaml", "{"),
            ("f.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: f}\nspec: {}\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let reading = read_all(dir.path(), "n", Timestamp::UNIX_EPOCH);
        assert_eq!(reading.pods.len(), 1);
        let names: Vec<_> =
            reading.errors.keys().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b.yaml", "c.yaml", "d.yaml", "f.yaml"]);
        assert!(
            reading.errors.values().any(|error| error.contains("spec.containers")),
            "{:?}",
            reading.errors
        );
    }
}

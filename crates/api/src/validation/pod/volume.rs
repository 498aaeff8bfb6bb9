//! Volumes, and how containers mount them (ENV-51..54, IMG-88).

use std::collections::BTreeMap;

use serde_json::Value;

use super::env;
use super::projected::projected;
use crate::{
    FieldError, Quantity,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, one_of, required_text},
};

/// The pod's volumes: name, and whether it is a block device claim candidate.
pub(super) struct VolumeNames(BTreeMap<String, bool>);

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn volumes(list: &[Value], path: &Path, pod: bool, out: &mut Errors) -> VolumeNames {
    let mut known = BTreeMap::new();
    for (i, volume) in list.iter().enumerate() {
        let path = path.index(i);
        source(volume, &path, pod, out);
        let name = str_of(volume, "name");
        if name.is_empty() {
            out.push(FieldError::required(path.child("name"), ""));
            continue;
        }
        invalid_all(names::dns1123_label(name), name, &path.child("name"), out);
        let claim = volume.get("persistentVolumeClaim").is_some() || volume.get("ephemeral").is_some();
        if known.insert(name.to_owned(), claim).is_some() {
            out.push(FieldError::duplicate(path.child("name"), name));
        }
    }
    VolumeNames(known)
}

fn source(volume: &Value, path: &Path, pod: bool, out: &mut Errors) {
    let kinds: Vec<&String> =
        volume.as_object().into_iter().flatten().map(|(key, _)| key).filter(|k| *k != "name").collect();
    if kinds.is_empty() {
        out.push(FieldError::required(path, "must specify a volume type"));
    }
    for (i, kind) in kinds.into_iter().enumerate() {
        let at = path.child(kind);
        if i > 0 {
            out.push(FieldError::forbidden(at, "may not specify more than 1 volume type"));
            continue;
        }
        let source = &volume[kind.as_str()];
        match kind.as_str() {
            "emptyDir" => {
                if source.get("sizeLimit").is_some_and(|q| Quantity::or_zero(Some(q)).is_negative()) {
                    let message = "SizeLimit field must be a valid resource quantity";
                    out.push(FieldError::forbidden(at.child("sizeLimit"), message));
                }
            }
            "hostPath" => host_path(source, &at, out),
            "secret" => {
                required_text(source, "secretName", &at, out);
                files(source, &at, out);
            }
            "configMap" => {
                required_text(source, "name", &at, out);
                files(source, &at, out);
            }
            "downwardAPI" => downward(source, &at, out),
            "projected" => projected(source, &at, out),
            "persistentVolumeClaim" => {
                required_text(source, "claimName", &at, out);
            }
            "nfs" => {
                required_text(source, "server", &at, out);
                if required_text(source, "path", &at, out) && !str_of(source, "path").starts_with('/') {
                    let message = "must be an absolute path";
                    out.push(FieldError::invalid(at.child("path"), str_of(source, "path"), message));
                }
            }
            "image" => {
                if pod {
                    required_text(source, "reference", &at, out);
                }
                let policy = str_of(source, "pullPolicy");
                if !policy.is_empty() {
                    one_of(policy, &["Always", "IfNotPresent", "Never"], &at.child("pullPolicy"), out);
                }
            }
            "csi" => {
                required_text(source, "driver", &at, out);
            }
            "ephemeral" => {
                if source.get("volumeClaimTemplate").is_none() {
                    out.push(FieldError::required(at.child("volumeClaimTemplate"), ""));
                }
            }
            _ => {}
        }
    }
}

fn host_path(source: &Value, path: &Path, out: &mut Errors) {
    if required_text(source, "path", path, out) {
        no_backsteps(str_of(source, "path"), &path.child("path"), out);
    }
    let kinds =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    one_of(str_of(source, "type"), &kinds, &path.child("type"), out);
}

pub(super) fn mode(source: &Value, field: &str, path: &Path, out: &mut Errors) {
    if let Some(n) = source.get(field).and_then(Value::as_i64).filter(|n| !(0..=0o777).contains(n)) {
        out.push(FieldError::invalid(path.child(field), n, MODE));
    }
}

/// `defaultMode` and `items` of secrets and config maps.
pub(super) fn files(source: &Value, path: &Path, out: &mut Errors) {
    mode(source, "defaultMode", path, out);
    for (i, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(i);
        required_text(item, "key", &path, out);
        if required_text(item, "path", &path, out) {
            non_reserved(str_of(item, "path"), &path.child("path"), out);
        }
        mode(item, "mode", &path, out);
    }
}

pub(super) fn downward(source: &Value, path: &Path, out: &mut Errors) {
    mode(source, "defaultMode", path, out);
    for (i, item) in items(source, "items").iter().enumerate() {
        let path = path.child("items").index(i);
        if required_text(item, "path", &path, out) {
            non_reserved(str_of(item, "path"), &path.child("path"), out);
        }
        match (item.get("fieldRef"), item.get("resourceFieldRef")) {
            (Some(_), Some(_)) => {
                out.push(FieldError::invalid(
                    &path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
            (Some(field), None) => env::field_ref(field, &env::VOLUME_FIELDS, &path.child("fieldRef"), out),
            (None, Some(resource)) => env::resource_ref(resource, true, &path.child("resourceFieldRef"), out),
            (None, None) => {
                out.push(FieldError::required(
                    path.child("fieldRef"),
                    "one of fieldRef and resourceFieldRef is required",
                ));
            }
        }
        mode(item, "mode", &path, out);
    }
}

fn no_backsteps(value: &str, path: &Path, out: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        out.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// A path that stays below where it starts.
pub(super) fn descending(value: &str, path: &Path, out: &mut Errors) {
    if value.starts_with('/') {
        out.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(value, path, out);
}

pub(super) fn non_reserved(value: &str, path: &Path, out: &mut Errors) {
    descending(value, path, out);
    if value.starts_with("..") && !value.starts_with("../") {
        out.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

impl VolumeNames {
    /// A container's `volumeMounts` and `volumeDevices`.
    pub(super) fn mounts(&self, container: &Value, path: &Path, out: &mut Errors) {
        let privileged =
            container.pointer("/securityContext/privileged").and_then(Value::as_bool) == Some(true);
        let mounts = items(container, "volumeMounts");
        for (i, mount) in mounts.iter().enumerate() {
            let path = path.child("volumeMounts").index(i);
            let (name, at) = (str_of(mount, "name"), str_of(mount, "mountPath"));
            if name.is_empty() {
                out.push(FieldError::required(path.child("name"), ""));
            }
            if !self.0.contains_key(name) {
                out.push(FieldError::not_found(path.child("name"), name));
            }
            if at.is_empty() {
                out.push(FieldError::required(path.child("mountPath"), ""));
            } else if mounts[..i].iter().any(|m| str_of(m, "mountPath") == at) {
                out.push(FieldError::invalid(path.child("mountPath"), at, "must be unique"));
            }
            let (sub, expression) = (str_of(mount, "subPath"), str_of(mount, "subPathExpr"));
            if !sub.is_empty() {
                descending(sub, &path.child("subPath"), out);
            }
            if !expression.is_empty() {
                if !sub.is_empty() {
                    let message = "subPathExpr and subPath are mutually exclusive";
                    out.push(FieldError::invalid(path.child("subPathExpr"), expression, message));
                }
                descending(expression, &path.child("subPathExpr"), out);
            }
            let propagation = str_of(mount, "mountPropagation");
            if !propagation.is_empty() {
                let at = path.child("mountPropagation");
                one_of(propagation, &["Bidirectional", "HostToContainer", "None"], &at, out);
                if propagation == "Bidirectional" && !privileged {
                    let message =
                        "Bidirectional mount propagation is available only to privileged containers";
                    out.push(FieldError::forbidden(at, message));
                }
            }
            recursive_read_only(mount, &path, out);
        }
        for (i, device) in items(container, "volumeDevices").iter().enumerate() {
            let path = path.child("volumeDevices").index(i);
            let name = str_of(device, "name");
            match self.0.get(name) {
                _ if name.is_empty() => out.push(FieldError::required(path.child("name"), "")),
                None => out.push(FieldError::not_found(path.child("name"), name)),
                Some(false) => {
                    let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    out.push(FieldError::invalid(path.child("name"), name, message));
                }
                Some(true) => {}
            }
            if required_text(device, "devicePath", &path, out) {
                no_backsteps(str_of(device, "devicePath"), &path.child("devicePath"), out);
            }
        }
    }
}

fn recursive_read_only(mount: &Value, path: &Path, out: &mut Errors) {
    let value = str_of(mount, "recursiveReadOnly");
    let at = path.child("recursiveReadOnly");
    if value.is_empty() || value == "Disabled" {
        return;
    }
    one_of(value, &["Disabled", "Enabled", "IfPossible"], &at, out);
    if mount.get("readOnly").and_then(Value::as_bool) != Some(true) {
        out.push(FieldError::forbidden(&at, "may only be specified when readOnly is true"));
    }
    let propagation = str_of(mount, "mountPropagation");
    if !matches!(propagation, "" | "None") {
        out.push(FieldError::forbidden(
            at,
            "may only be specified when mountPropagation is None or not specified",
        ));
    }
}

//! Roles and bindings.

use serde_json::Value;

use super::{Errors, one_of, required_text};
use crate::{
    FieldError,
    field::Path,
    meta::{self, items, str_of},
    names,
    scheme::Resource,
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate(resource: &Resource, object: &Value, out: &mut Errors) {
    match resource.kind {
        "Role" => rules(object, true, out),
        "ClusterRole" => {
            rules(object, false, out);
            for (i, selector) in
                meta::list(object, "/aggregationRule/clusterRoleSelectors").iter().enumerate()
            {
                let path = Path::new("aggregationRule").child("clusterRoleSelectors").index(i);
                super::label_selector(selector, &path, out);
            }
        }
        kind => binding(object, kind == "RoleBinding", out),
    }
}

fn rules(object: &Value, namespaced: bool, out: &mut Errors) {
    for (i, rule) in items(object, "rules").iter().enumerate() {
        let path = Path::new("rules").index(i);
        let has = |field: &str| !items(rule, field).is_empty();
        if !has("verbs") {
            out.push(FieldError::required(path.child("verbs"), "verbs must contain at least one value"));
        }
        if has("nonResourceURLs") {
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                out.push(FieldError::invalid(
                    path.child("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    message,
                ));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                out.push(FieldError::invalid(
                    path.child("nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    message,
                ));
            }
            continue;
        }
        if !has("apiGroups") {
            let message = "resource rules must supply at least one api group";
            out.push(FieldError::required(path.child("apiGroups"), message));
        }
        if !has("resources") {
            let message = "resource rules must supply at least one resource";
            out.push(FieldError::required(path.child("resources"), message));
        }
    }
}

fn binding(object: &Value, namespaced: bool, out: &mut Errors) {
    let (path, role) = (Path::new("roleRef"), &object["roleRef"]);
    one_of(str_of(role, "apiGroup"), &[GROUP], &path.child("apiGroup"), out);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(str_of(role, "kind"), kinds, &path.child("kind"), out);
    if required_text(role, "name", &path, out) {
        let name = str_of(role, "name");
        super::invalid_all(names::path_segment(name), name, &path.child("name"), out);
    }
    for (i, subject) in items(object, "subjects").iter().enumerate() {
        let path = Path::new("subjects").index(i);
        required_text(subject, "name", &path, out);
        match str_of(subject, "kind") {
            "ServiceAccount" => {
                let name = str_of(subject, "name");
                if !name.is_empty() {
                    super::invalid_all(names::dns1123_subdomain(name), name, &path.child("name"), out);
                }
                one_of(str_of(subject, "apiGroup"), &[""], &path.child("apiGroup"), out);
                required_text(subject, "namespace", &path, out);
            }
            "User" | "Group" => one_of(str_of(subject, "apiGroup"), &[GROUP], &path.child("apiGroup"), out),
            other => out.push(FieldError::not_supported(
                path.child("kind"),
                other,
                &["ServiceAccount", "User", "Group"],
            )),
        }
    }
}

//! Tolerations, affinity, spreading, gates.

use serde_json::Value;

use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, label_selector, one_of, selector_operator},
};

pub(in crate::validation) fn tolerations(list: &[Value], path: &Path, out: &mut Errors) {
    for (i, toleration) in list.iter().enumerate() {
        let path = path.index(i);
        let text = |field: &str| str_of(toleration, field);
        let (key, operator, value, effect) = (text("key"), text("operator"), text("value"), text("effect"));
        if !key.is_empty() {
            invalid_all(names::qualified_name(key), key, &path.child("key"), out);
        } else if operator != "Exists" {
            let message =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            out.push(FieldError::invalid(path.child("operator"), operator, message));
        }
        if toleration.get("tolerationSeconds").is_some() && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(FieldError::invalid(path.child("effect"), effect, message));
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if let Some(message) = (!messages.is_empty()).then(|| messages.join(";")) {
                    out.push(FieldError::invalid(path.child("operator"), value, message));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let message = "value must be empty when `operator` is 'Exists'";
                    out.push(FieldError::invalid(path.child("operator"), operator, message));
                }
            }
            other => out.push(FieldError::not_supported(path.child("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path.child("effect"), out);
        }
    }
}

pub(super) fn gates(list: &[Value], path: &Path, out: &mut Errors) {
    for (i, gate) in list.iter().enumerate() {
        let name = str_of(gate, "name");
        invalid_all(names::qualified_name(name), name, &path.index(i), out);
        if list[..i].iter().any(|g| str_of(g, "name") == name) {
            out.push(FieldError::duplicate(path.index(i), name));
        }
    }
}

pub(super) fn affinity(affinity: &Value, path: &Path, out: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = affinity.get("nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = node.get(REQUIRED) {
            let path = path.child(REQUIRED).child("nodeSelectorTerms");
            let terms = items(required, "nodeSelectorTerms");
            if terms.is_empty() {
                out.push(FieldError::required(&path, "must have at least one node selector term"));
            }
            for (i, term) in terms.iter().enumerate() {
                node_term(term, &path.index(i), out);
            }
        }
        for (i, preferred) in items(node, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(preferred, &path, out);
            node_term(&preferred["preference"], &path.child("preference"), out);
        }
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.get(field) else { continue };
        let path = path.child(field);
        for (i, term) in items(pods, REQUIRED).iter().enumerate() {
            pod_term(term, &path.child(REQUIRED).index(i), out);
        }
        for (i, preferred) in items(pods, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(preferred, &path, out);
            pod_term(&preferred["podAffinityTerm"], &path.child("podAffinityTerm"), out);
        }
    }
}

fn weight(preferred: &Value, path: &Path, out: &mut Errors) {
    let n = preferred.get("weight").and_then(Value::as_i64).unwrap_or(0);
    if !(1..=100).contains(&n) {
        out.push(FieldError::invalid(path.child("weight"), n, "must be in the range 1-100"));
    }
}

fn node_term(term: &Value, path: &Path, out: &mut Errors) {
    for (i, expression) in items(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = items(expression, "values");
        match str_of(expression, "operator") {
            "Gt" | "Lt" if values.len() != 1 => out.push(FieldError::required(
                path.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "Gt" | "Lt" => {}
            other => selector_operator(other, values, &path, out),
        }
        let key = str_of(expression, "key");
        invalid_all(names::qualified_name(key), key, &path.child("key"), out);
    }
    for (i, expression) in items(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(i);
        if str_of(expression, "key") != "metadata.name" {
            let key = str_of(expression, "key");
            out.push(FieldError::invalid(path.child("key"), key, "not a valid field selector key"));
        }
        if items(expression, "values").len() != 1 {
            let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            out.push(FieldError::required(path.child("values"), message));
        }
    }
}

fn pod_term(term: &Value, path: &Path, out: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        label_selector(&term[field], &path.child(field), out);
    }
    for (i, namespace) in items(term, "namespaces").iter().enumerate() {
        let namespace = namespace.as_str().unwrap_or_default();
        invalid_all(names::dns1123_label(namespace), namespace, &path.child("namespaces").index(i), out);
    }
    let key = str_of(term, "topologyKey");
    if key.is_empty() {
        out.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    } else {
        invalid_all(names::qualified_name(key), key, &path.child("topologyKey"), out);
    }
}

pub(super) fn spread(list: &[Value], path: &Path, out: &mut Errors) {
    for (i, constraint) in list.iter().enumerate() {
        let path = path.index(i);
        let skew = constraint.get("maxSkew").and_then(Value::as_i64).unwrap_or(0);
        if skew <= 0 {
            out.push(FieldError::invalid(path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = str_of(constraint, "topologyKey");
        if key.is_empty() {
            out.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        } else {
            invalid_all(names::qualified_name(key), key, &path.child("topologyKey"), out);
        }
        let unsatisfiable = str_of(constraint, "whenUnsatisfiable");
        one_of(unsatisfiable, &["DoNotSchedule", "ScheduleAnyway"], &path.child("whenUnsatisfiable"), out);
        let same =
            |c: &Value| str_of(c, "topologyKey") == key && str_of(c, "whenUnsatisfiable") == unsatisfiable;
        if list[..i].iter().any(same) {
            out.push(FieldError::duplicate(
                path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{key}, {unsatisfiable}}}"),
            ));
        }
        label_selector(&constraint["labelSelector"], &path.child("labelSelector"), out);
    }
}

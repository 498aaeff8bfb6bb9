//! The paths of the OpenAPI documents: every resource's URLs with their verbs and query parameters.

use serde_json::{Map, Value, json};

use super::super::types::type_of_kind;
use crate::scheme::{self, Resource};

/// The media types of patches.
const PATCH_TYPES: [&str; 5] = [
    "application/apply-patch+cbor",
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const QUERY: [(&str, &str, &str); 5] = [
    (
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid value: All",
    ),
    ("fieldManager", "string", "A name for the actor that makes these changes."),
    (
        "fieldValidation",
        "string",
        "What to do with unknown or duplicate fields: Ignore, Warn (the default) or Strict.",
    ),
    ("force", "boolean", "Take over fields that other managers own; only for apply patches."),
    ("pretty", "string", "If 'true', then the output is pretty printed."),
];

/// One operation, independent of the OpenAPI version.
struct Operation {
    method: &'static str,
    action: &'static str,
    kind: (&'static str, &'static str, &'static str),
    body: bool,
}

fn base(resource: &Resource) -> String {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if resource.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root }
}

fn all(resources: &[&'static Resource]) -> Vec<(String, Vec<Operation>)> {
    let mut out = Vec::new();
    for r in resources {
        let kind = (r.group, r.version, r.kind);
        let has = |verb: &str| r.verbs.contains(&verb);
        let op = |method, action, body| Operation { method, action, kind, body };
        let collection = format!("{}/{}", base(r), r.plural);
        let mut ops = Vec::new();
        if has("list") {
            ops.push(op("get", "list", false));
        }
        if has("create") {
            ops.push(op("post", "post", true));
        }
        if has("deletecollection") {
            ops.push(op("delete", "deletecollection", false));
        }
        out.push((collection.clone(), ops));
        if r.namespaced && has("list") {
            let everywhere = collection.replace("/namespaces/{namespace}", "");
            out.push((everywhere, vec![op("get", "list", false)]));
        }
        let mut ops = Vec::new();
        for (verb, method, body) in [
            ("get", "get", false),
            ("update", "put", true),
            ("patch", "patch", true),
            ("delete", "delete", false),
        ] {
            if has(verb) {
                ops.push(op(method, method, body));
            }
        }
        if !ops.is_empty() {
            out.push((format!("{collection}/{{name}}"), ops));
        }
        for s in r.subresources {
            let kind = (s.group, s.version, s.kind);
            let ops = s.verbs.iter().filter_map(|verb| {
                let (method, body) = match *verb {
                    "get" => ("get", false),
                    "create" => ("post", true),
                    "update" => ("put", true),
                    "patch" => ("patch", true),
                    "delete" => ("delete", false),
                    _ => return None,
                };
                let body = body && type_of_kind(kind.0, kind.1, kind.2).is_some();
                Some(Operation { method, action: method, kind, body })
            });
            out.push((format!("{collection}/{{name}}/{}", s.name), ops.collect()));
        }
    }
    out
}

fn common(op: &Operation) -> Map<String, Value> {
    let (group, version, kind) = op.kind;
    let mut out = Map::new();
    out.insert("x-kubernetes-action".into(), op.action.into());
    out.insert(
        "x-kubernetes-group-version-kind".into(),
        json!({"group": group, "version": version, "kind": kind}),
    );
    out.insert(
        "responses".into(),
        json!({"200": {"description": "OK"}, "401": {"description": "Unauthorized"}}),
    );
    out
}

fn query_names(op: &Operation) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    let method = op.method;
    QUERY.iter().filter(move |(name, ..)| match *name {
        "force" => method == "patch",
        "pretty" => true,
        "dryRun" => method != "get",
        _ => matches!(method, "post" | "put" | "patch"),
    })
}

fn path_names(path: &str) -> impl Iterator<Item = &'static str> {
    ["name", "namespace"].into_iter().filter(move |name| path.contains(&format!("{{{name}}}")))
}

/// The `paths` of a v3 document.
pub(super) fn v3(resources: &[&'static Resource]) -> Value {
    let mut out = Map::new();
    for (path, ops) in all(resources) {
        let mut item = Map::new();
        let parameters: Vec<Value> = path_names(&path)
            .map(|n| json!({"name": n, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        for op in ops {
            let mut operation = common(&op);
            let query: Vec<Value> = query_names(&op)
                .map(|(name, kind, text)| {
                    json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}})
                })
                .collect();
            operation.insert("parameters".into(), query.into());
            if op.body {
                let types: &[&str] = if op.method == "patch" { &PATCH_TYPES } else { &["*/*"] };
                let target = if op.method == "patch" {
                    json!({"type": "object"})
                } else {
                    type_of_kind(op.kind.0, op.kind.1, op.kind.2)
                        .map_or(json!({}), |t| json!({"$ref": format!("#/components/schemas/{}", t.name())}))
                };
                let content: Map<String, Value> =
                    types.iter().map(|t| ((*t).to_owned(), json!({"schema": target}))).collect();
                operation.insert("requestBody".into(), json!({"content": content, "required": true}));
            }
            item.insert(op.method.into(), Value::Object(operation));
        }
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        out.insert(path, Value::Object(item));
    }
    Value::Object(out)
}

/// The `paths` of the v2 document.
pub(super) fn v2() -> Value {
    let resources: Vec<&'static Resource> = scheme::resources().iter().collect();
    let mut out = Map::new();
    for (path, ops) in all(&resources) {
        let mut item = Map::new();
        for op in ops {
            let mut operation = common(&op);
            let mut parameters: Vec<Value> = path_names(&path)
                .map(|n| json!({"name": n, "in": "path", "required": true, "type": "string"}))
                .collect();
            parameters.extend(query_names(&op).map(|(name, kind, text)| {
                json!({"name": name, "in": "query", "description": text, "type": kind, "uniqueItems": true})
            }));
            if op.body {
                let schema =
                    type_of_kind(op.kind.0, op.kind.1, op.kind.2).filter(|_| op.method != "patch").map_or(
                        json!({"type": "object"}),
                        |t| json!({"$ref": format!("#/definitions/{}", t.name())}),
                    );
                parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
            }
            let consumes: &[&str] = if op.method == "patch" { &PATCH_TYPES } else { &["*/*"] };
            operation.insert("consumes".into(), json!(consumes));
            operation.insert("produces".into(), json!(["application/json", "application/yaml"]));
            operation.insert("parameters".into(), parameters.into());
            item.insert(op.method.into(), Value::Object(operation));
        }
        out.insert(path, Value::Object(item));
    }
    Value::Object(out)
}

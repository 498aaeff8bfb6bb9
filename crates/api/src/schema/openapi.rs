//! The OpenAPI documents, written on demand from the compressed definitions and the scheme.
//!
//! v3 (one document a group version) is what kubectl's `explain`, `apply` and field validation read; v2 (JSON, and
//! protobuf for older kubectl) is one document for everything. Only one definition at a time is ever a `Value`.

mod gnostic;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Value, json};

use super::types::{Type, type_named, type_of_kind};
use crate::scheme::{self, Resource};
use crate::version::GIT_VERSION;

static DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.deflate"));
static HASH: &str = include_str!(concat!(env!("OUT_DIR"), "/hash.txt"));

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The media type under which kubectl asks for the protobuf form of v2.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The `Content-Type` of that answer: `@` is not allowed in a media type, and kubectl's parser refuses it there.
pub const V2_PROTOBUF_CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A hash that changes whenever the documents do (ETags).
pub fn hash() -> &'static str {
    HASH
}

/// The path of a group version below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: where each group version's document is.
pub fn openapi_v3_index() -> Value {
    let paths = scheme::groups().into_iter().flat_map(|(group, versions)| {
        versions.into_iter().map(move |version| {
            let path = group_version_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={HASH}");
            (path, json!({"serverRelativeURL": url}))
        })
    });
    json!({"paths": paths.collect::<serde_json::Map<_, _>>()})
}

/// The document of one group version (`api/v1`, `apis/apps/v1`) as JSON text; None when there is no such group version.
pub fn openapi_v3(path: &str) -> Option<Vec<u8>> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return None,
    };
    let resources: Vec<&Resource> =
        scheme::resources().iter().filter(|r| r.group == group && r.version == version).collect();
    if resources.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"openapi\":\"3.0.0\",\"info\":");
    out.extend_from_slice(info().to_string().as_bytes());
    out.extend_from_slice(b",\"paths\":");
    out.extend_from_slice(paths::v3(&resources).to_string().as_bytes());
    out.extend_from_slice(b",\"components\":{\"schemas\":{");
    let wanted = closure(&resources);
    let mut first = true;
    each_definition(|name, definition| {
        if wanted.contains(name) {
            append(&mut out, &mut first, name, &to_v3(definition));
        }
    });
    for resource in resources.iter().filter(|r| r.is_stored()) {
        if let Some((name, list)) = list_definition(resource) {
            append(&mut out, &mut first, &name, &to_v3(list));
        }
    }
    out.extend_from_slice(
        b"},\"securitySchemes\":{\"BearerToken\":{\"type\":\"apiKey\",\"description\":\"Bearer Token authentication\",\
          \"name\":\"authorization\",\"in\":\"header\"}}}}",
    );
    Some(out)
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": GIT_VERSION})
}

/// The whole v2 document as JSON text.
pub fn openapi_v2_json() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"swagger\":\"2.0\",\"info\":");
    out.extend_from_slice(info().to_string().as_bytes());
    out.extend_from_slice(b",\"paths\":");
    out.extend_from_slice(paths::v2().to_string().as_bytes());
    out.extend_from_slice(b",\"definitions\":{");
    let mut first = true;
    for_all_definitions(|name, definition| append(&mut out, &mut first, name, &definition));
    out.extend_from_slice(
        b"},\"securityDefinitions\":{\"BearerToken\":{\"type\":\"apiKey\",\"description\":\"Bearer Token \
          authentication\",\"name\":\"authorization\",\"in\":\"header\"}},\"security\":[{\"BearerToken\":[]}]}",
    );
    out
}

/// The whole v2 document in gnostic's protobuf form ([`V2_PROTOBUF`]).
pub fn openapi_v2_protobuf() -> Vec<u8> {
    gnostic::document(&paths::v2(), |run| for_all_definitions(run))
}

fn for_all_definitions(mut run: impl FnMut(&str, Value)) {
    each_definition(&mut run);
    for resource in scheme::resources().iter().filter(|r| r.is_stored()) {
        if let Some((name, list)) = list_definition(resource) {
            run(&name, list);
        }
    }
}

fn append(out: &mut Vec<u8>, first: &mut bool, name: &str, definition: &Value) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    out.extend_from_slice(Value::from(name).to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(definition.to_string().as_bytes());
}

/// Calls with each definition in turn, inflating as it goes.
fn each_definition(mut run: impl FnMut(&str, Value)) {
    let mut text = String::new();
    let read = flate2::read::DeflateDecoder::new(DEFINITIONS).read_to_string(&mut text);
    read.expect("the embedded definitions were compressed by build.rs");
    for line in text.lines() {
        if let Some((name, json)) = line.split_once('\t') {
            let definition = serde_json::from_str(json).expect("build.rs writes JSON");
            run(name, definition);
        }
    }
}

/// The names of all definitions that these resources need, directly or not.
fn closure(resources: &[&Resource]) -> BTreeSet<&'static str> {
    let extra = ["ListMeta", "DeleteOptions", "Status"].map(|k| type_named(&format!("{META}.{k}")));
    let own = resources.iter().map(|r| type_of_kind(r.group, r.version, r.kind));
    let parts =
        resources.iter().flat_map(|r| r.subresources).map(|s| type_of_kind(s.group, s.version, s.kind));
    let mut todo: Vec<Type> = own.chain(parts).chain(extra).flatten().collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = todo.pop() {
        if seen.insert(next.name()) {
            todo.extend(next.mentions());
        }
    }
    seen
}

/// `PodList` and so on, which the types do not have.
fn list_definition(resource: &Resource) -> Option<(String, Value)> {
    let item = type_of_kind(resource.group, resource.version, resource.kind)?.name();
    let kind = resource.list_kind();
    let definition = json!({
        "description": format!("{kind} is a list of {} objects.", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "APIVersion of this list."},
            "kind": {"type": "string", "description": "Kind of this list."},
            "metadata": {"$ref": format!("#/definitions/{META}.ListMeta"), "description": "Standard list metadata."},
            "items": {"type": "array", "items": {"$ref": format!("#/definitions/{item}")}, "description": "The objects."},
        },
        "x-kubernetes-group-version-kind":
            [{"group": resource.group, "kind": kind, "version": resource.version}],
    });
    Some((format!("{item}List"), definition))
}

/// From the v2 form: references move to `components`, and one with siblings is wrapped in `allOf`.
fn to_v3(mut definition: Value) -> Value {
    let format = definition["format"].as_str() == Some("int-or-string");
    rewrite(&mut definition);
    if format {
        definition["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]);
        if let Some(map) = definition.as_object_mut() {
            map.remove("type");
        }
    }
    definition
}

fn rewrite(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(rewrite);
            if let Some(Value::String(target)) = map.get("$ref") {
                let target = target.replace("#/definitions/", "#/components/schemas/");
                let reference = json!({"$ref": target});
                map.remove("$ref");
                if map.is_empty() {
                    *value = reference;
                } else {
                    map.insert("allOf".into(), json!([reference]));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        _ => {}
    }
}

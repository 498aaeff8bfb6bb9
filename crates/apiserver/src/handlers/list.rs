//! `list`: a collection, whole or in pieces.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use sampan_api::table::table;
use sampan_api::{Status, meta};
use serde_json::{Value, json};

use super::{options, present};
use crate::negotiate::{Accepted, Form};
use crate::registry::list::Page;
use crate::registry::{Scope, codec};
use crate::respond::{self, Response};

/// Answers a collection.
pub(super) async fn list(scope: &Scope<'_>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    let request = options::list(context, scope.resource, scope.namespace)?;
    let page = scope.server.registry.list(scope.resource, &request).await?;
    if accepted.form == Form::Object && !accepted.yaml && !accepted.pretty && !scope.converts() {
        let body = join(scope, &page);
        return Ok(respond::complete(context, 200, "application/json", body));
    }
    let objects: Vec<Value> = page.objects.iter().map(|object| scope.from_storage(object.value())).collect();
    let metadata = list_metadata(&page);
    let body = match accepted.form {
        Form::Object => whole(scope, objects, metadata),
        Form::PartialMetadata => {
            let items: Vec<Value> = objects.iter().map(meta::partial_object_metadata).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        Form::Table => {
            let mut rows = table(scope.resource, &objects, Timestamp::now(), present::include(context)?);
            rows["metadata"] = metadata;
            rows
        }
    };
    respond::value(context, &accepted, 200, &body)
}

/// A list of objects, each without its kind, as upstream writes them.
pub(super) fn whole(scope: &Scope<'_>, mut objects: Vec<Value>, metadata: Value) -> Value {
    for object in &mut objects {
        let map = meta::object_mut(object);
        map.remove("kind");
        map.remove("apiVersion");
    }
    json!({"kind": scope.resource.list_kind(), "apiVersion": scope.resource.api_version(), "metadata": metadata, "items": objects})
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(continues) = &page.continues {
        metadata["continue"] = json!(continues.encode());
    }
    if let Some(remaining) = page.remaining.filter(|remaining| *remaining > 0) {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

/// The list's JSON put together from the objects' bytes.
fn join(scope: &Scope<'_>, page: &Page) -> Bytes {
    const METADATA: &str = "\"metadata\":{";
    let head = codec::head(scope.resource);
    let kind = head.len() - METADATA.len();
    let size = page.objects.iter().map(|object| object.bytes.len() + 2).sum::<usize>();
    let mut out = BytesMut::with_capacity(size + 256);
    let resource = scope.resource;
    let start = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        resource.list_kind(),
        resource.api_version(),
        list_metadata(page)
    );
    out.put_slice(start.as_bytes());
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        match object.bytes.strip_prefix(&head.as_bytes()[..kind]) {
            Some(rest) => {
                out.put_u8(b'{');
                out.put_slice(rest);
            }
            None => out.put_slice(&object.bytes),
        }
    }
    out.put_slice(b"]}");
    out.freeze()
}

//! An object as the caches hold it, and what happened to it.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// One version of an object: its JSON, shared by everybody who delivers it.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name` or `name`.
    pub suffix: String,
    /// Its resource version.
    pub revision: i64,
    /// Its JSON, resource version included.
    pub bytes: Bytes,
    /// What selectors look at, made when the first one asks.
    subject: OnceLock<Value>,
}

impl Object {
    /// Wraps versioned bytes.
    pub fn new(suffix: impl Into<String>, revision: i64, bytes: Bytes) -> Self {
        Self { suffix: suffix.into(), revision, bytes, subject: OnceLock::new() }
    }

    /// The object, parsed anew. `null` for bytes that are no JSON, which the registry never writes.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The parts of the object that label and field selectors look at; kept, since many watchers ask.
    pub fn subject(&self) -> &Value {
        self.subject.get_or_init(|| subject(self.value()))
    }

    /// The namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.suffix.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.suffix.split_once('/').map_or(&self.suffix, |(_, name)| name)
    }
}

/// Cuts an object down to names, labels and every scalar that a field selector may name (at most two levels below the
/// top, plus the references of events): what is kept in memory beside the bytes should be small.
fn subject(mut object: Value) -> Value {
    let Some(map) = object.as_object_mut() else { return object };
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels"));
    }
    for (name, value) in map.iter_mut() {
        match name.as_str() {
            "metadata" => {}
            "data" | "binaryData" | "stringData" | "webhooks" | "rules" | "subsets" | "endpoints" => {
                *value = Value::Null
            }
            "message" | "note" => *value = Value::Null,
            _ => match value {
                Value::Object(fields) => fields.retain(|field, value| {
                    !value.is_array() && !value.is_object() || field == "podIPs" || field == "hostIPs"
                }),
                Value::Array(_) => *value = Value::Null,
                _ => {}
            },
        }
    }
    map.retain(|_, value| !value.is_null());
    object
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The object is new (to the watcher).
    Added,
    /// It was written.
    Modified,
    /// It is gone.
    Deleted,
}

impl EventKind {
    /// As watch frames say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change of an object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object: for a deletion its last state, with the deletion's revision.
    pub object: Arc<Object>,
    /// What was there before.
    pub previous: Option<Arc<Object>>,
    /// The frame for watchers of everything, made when the first one needs it.
    frame: OnceLock<Bytes>,
}

impl Event {
    /// A change.
    pub fn new(kind: EventKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { kind, object, previous, frame: OnceLock::new() }
    }

    /// The JSON line that reports the change as it is.
    pub fn frame(&self) -> Bytes {
        self.frame.get_or_init(|| frame(self.kind.as_str(), &self.object.bytes)).clone()
    }
}

/// A line of a watch: `{"type":T,"object":O}`.
pub(super) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

//! OpenAPI v2 in gnostic's protobuf messages, which kubectl reads instead of JSON. Encoded by hand: a few message
//! types, write only. The field numbers are those of gnostic's `openapiv2.proto`.

use serde_json::{Map, Value};

use crate::version::GIT_VERSION;

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    fn boolean(&mut self, field: u64, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// `NamedX{name = 1, value = 2}`.
    fn named(&mut self, field: u64, name: &str, value: &Message) {
        let mut pair = Message::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, &pair);
    }

    /// Every `x-…` member as a NamedAny with its YAML text.
    fn extensions(&mut self, field: u64, map: &Map<String, Value>) {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            any.bytes(2, value.to_string().as_bytes());
            self.named(field, name, &any);
        }
    }
}

/// The document; `definitions` is called with a function that takes each definition.
pub(super) fn document(paths: &Value, definitions: impl FnOnce(&mut dyn FnMut(&str, Value))) -> Vec<u8> {
    let mut out = Message::default();
    out.bytes(1, b"2.0");
    let mut info = Message::default();
    info.bytes(1, b"Kubernetes");
    info.bytes(2, GIT_VERSION.as_bytes());
    out.message(2, &info);
    let mut list = Message::default();
    for (path, item) in paths.as_object().into_iter().flatten() {
        list.named(2, path, &path_item(item));
    }
    out.message(8, &list);
    let mut all = Message::default();
    definitions(&mut |name, definition| all.named(1, name, &schema(&definition)));
    out.message(9, &all);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(op) = item.get(method).and_then(Value::as_object) {
            out.message(field, &operation(op));
        }
    }
    out
}

fn operation(op: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    out.texts(6, op.get("produces"));
    out.texts(7, op.get("consumes"));
    for parameter in op.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut item = Message::default();
        item.message(1, &self::parameter(parameter));
        out.message(8, &item);
    }
    let mut responses = Message::default();
    for (code, response) in op.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let (mut inner, mut value) = (Message::default(), Message::default());
        inner.text(1, response.get("description"));
        value.message(1, &inner);
        responses.named(1, code, &value);
    }
    out.message(9, &responses);
    out.extensions(13, op);
    out
}

fn parameter(p: &Value) -> Message {
    let (mut out, mut inner) = (Message::default(), Message::default());
    if p["in"] == "body" {
        inner.text(2, p.get("name"));
        inner.text(3, p.get("in"));
        inner.boolean(4, p.get("required"));
        inner.message(5, &schema(&p["schema"]));
        out.message(1, &inner);
        return out;
    }
    inner.boolean(1, p.get("required"));
    inner.text(2, p.get("in"));
    inner.text(3, p.get("description"));
    inner.text(4, p.get("name"));
    let (kind, unique, choice) = if p["in"] == "query" { (6, 19, 3) } else { (5, 18, 4) };
    inner.text(kind, p.get("type"));
    inner.boolean(unique, p.get("uniqueItems"));
    let mut non_body = Message::default();
    non_body.message(choice, &inner);
    out.message(2, &non_body);
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(map) = value.as_object() else { return out };
    out.text(1, map.get("$ref"));
    out.text(2, map.get("format"));
    out.text(4, map.get("description"));
    out.texts(19, map.get("required"));
    if let Some(values) = map.get("additionalProperties") {
        let mut item = Message::default();
        if values.is_object() {
            item.message(1, &schema(values));
        } else {
            item.boolean(2, Some(values));
        }
        out.message(21, &item);
    }
    if map.contains_key("type") {
        let mut kind = Message::default();
        kind.text(1, map.get("type"));
        out.message(22, &kind);
    }
    if let Some(items) = map.get("items") {
        let mut list = Message::default();
        list.message(1, &schema(items));
        out.message(23, &list);
    }
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        let mut all = Message::default();
        for (name, property) in properties {
            all.named(1, name, &schema(property));
        }
        out.message(25, &all);
    }
    out.extensions(31, map);
    out
}

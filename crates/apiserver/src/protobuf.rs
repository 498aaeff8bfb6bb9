//! Bodies in Kubernetes' protobuf form, which kubectl's typed commands send (`create deployment`, `drain`): they become
//! the JSON that everything else reads. Answers are never written in this form; such clients accept JSON too.
//!
//! `protobuf/fields.txt` holds the field numbers of the published `generated.proto` files, one message a line with names in
//! lower case; what a field holds is known from the schema. `number name=message` is a structure that JSON writes
//! without a name of its own (a Volume's source).

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request};
use jiff::Timestamp;
use sampan_api::schema::{Base, Field, Shape, Type, type_of_kind};
use sampan_api::{Status, meta, scheme};
use serde_json::{Map, Value, json};

use crate::handlers;
use crate::respond::Body;

const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What precedes every object in this form.
const MAGIC: &[u8] = b"k8s\0";
const FIELDS: &str = include_str!("protobuf/fields.txt");
/// How deep messages may be nested (a schema of JSON schemas is the deepest that is real).
const MAX_DEPTH: usize = 64;
/// Go writes numbers and switches that are zero unless they are optional, JSON leaves them out: these are the optional
/// ones, where zero is not the same as nothing.
const MEANINGFUL_ZEROS: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "maxUnavailable",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seconds",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "startingDeadlineSeconds",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "value",
];

/// Turns a request whose body is protobuf into one whose body is JSON; others pass as they are. `headers` are the copy
/// that handlers look at.
///
/// # Errors
/// 400 when the body cannot be read, 413 when it is too large.
pub(crate) async fn to_json(
    request: Request<Body>,
    headers: &mut HeaderMap,
) -> Result<Request<Body>, Status> {
    let is = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.split(';').next().is_some_and(|media| media.trim() == MEDIA_TYPE))
    };
    if !headers.get(CONTENT_TYPE).is_some_and(is) {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let bytes = handlers::body::read(Request::new(body)).await?;
    // Clients send the type also where there is no body (a GET, a DELETE without options).
    let json = if bytes.is_empty() {
        bytes
    } else {
        let object = decode(&bytes)
            .map_err(|why| Status::bad_request(format!("the body of the request cannot be read: {why}")))?;
        serde_json::to_vec(&object).map_err(Status::internal_error)?.into()
    };
    for headers in [headers, &mut parts.headers] {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
    }
    Ok(Request::from_parts(parts, Body::from(json)))
}

/// Reads an object.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let envelope =
        bytes.strip_prefix(MAGIC).ok_or("the body does not begin with the mark of Kubernetes' protobuf")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in Items(envelope) {
        match item? {
            (1, Content::Bytes(bytes)) => {
                for item in Items(bytes) {
                    match item? {
                        (1, Content::Bytes(text)) => api_version = utf8(text)?.to_owned(),
                        (2, Content::Bytes(text)) => kind = utf8(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Content::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = scheme::split_api_version(&api_version);
    let kind_type = match kind.as_str() {
        // Every group has its own name for these.
        "DeleteOptions" => type_of_kind("", "v1", "DeleteOptions"),
        _ => type_of_kind(group, version, &kind),
    };
    let kind_type =
        kind_type.ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?}"))?;
    let mut object = Map::new();
    message(raw, kind_type, &kind_type.name().to_ascii_lowercase(), &mut object, 0)?;
    let mut object = Value::Object(object);
    let map = meta::object_mut(&mut object);
    map.insert("apiVersion".into(), json!(api_version));
    map.insert("kind".into(), json!(kind));
    Ok(object)
}

/// The fields of a message as they are written. By an index: bodies may hold a million messages.
fn fields_of(name: &str) -> &'static str {
    static INDEX: LazyLock<HashMap<&str, &str>> =
        LazyLock::new(|| FIELDS.lines().filter_map(|line| line.split_once(' ')).collect());
    INDEX.get(name).copied().unwrap_or_default()
}

/// `(number, name, message without a name of its own)` of each field.
fn parse(fields: &'static str) -> impl Iterator<Item = (u64, &'static str, Option<&'static str>)> {
    fields.split(' ').filter_map(|field| {
        let digits = field.bytes().take_while(u8::is_ascii_digit).count();
        let number = field[..digits].parse().ok()?;
        Some(match field[digits..].split_once('=') {
            Some((name, inline)) => (number, name, Some(inline)),
            None => (number, &field[digits..], None),
        })
    })
}

fn message(
    bytes: &[u8],
    schema: Type,
    name: &str,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("messages are nested too deeply".to_owned());
    }
    let fields = fields_of(name);
    for item in Items(bytes) {
        let (number, content) = item?;
        let Some((_, lower, inline)) = parse(fields).find(|(have, _, _)| *have == number) else { continue };
        let Some(field) = schema.fields().find(|field| field.name().eq_ignore_ascii_case(lower)) else {
            if let (Some(inline), Content::Bytes(bytes)) = (inline, content) {
                let package = name.rsplit_once('.').map_or("", |(package, _)| package);
                message(bytes, schema, &format!("{package}.{inline}"), out, depth + 1)?;
            }
            continue;
        };
        put(field, content, out, depth)?;
    }
    Ok(())
}

fn put(field: Field, content: Content<'_>, out: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    let name = field.name();
    match field.shape() {
        Shape::One => {
            let Some(value) = single(field, content, depth)? else { return Ok(()) };
            let zero = value == 0 || value == false || value == "";
            if !zero || MEANINGFUL_ZEROS.contains(&name) {
                out.insert(name.to_owned(), value);
            }
        }
        Shape::List => {
            let value = single(field, content, depth)?.unwrap_or(Value::Null);
            if let Value::Array(list) = out.entry(name).or_insert_with(|| json!([])) {
                list.push(value);
            }
        }
        Shape::Map | Shape::MapOfLists => {
            let Content::Bytes(entry) = content else { return Err(format!("{name} is no map")) };
            let (mut key, mut value) = (String::new(), None);
            for item in Items(entry) {
                match item? {
                    (1, Content::Bytes(text)) => key = utf8(text)?.to_owned(),
                    (2, Content::Bytes(list)) if field.shape() == Shape::MapOfLists => {
                        let texts = Items(list).filter_map(|item| match item {
                            Ok((1, Content::Bytes(text))) => Some(utf8(text).map(|text| json!(text))),
                            Ok(_) => None,
                            Err(error) => Some(Err(error)),
                        });
                        value = Some(Value::Array(texts.collect::<Result<_, _>>()?));
                    }
                    (2, content) => value = single(field, content, depth)?,
                    _ => {}
                }
            }
            // An empty value may be left out on the wire.
            let value = value.unwrap_or_else(|| match field.base() {
                Base::String | Base::Bytes => json!(""),
                _ => Value::Null,
            });
            if let Value::Object(map) = out.entry(name).or_insert_with(|| json!({})) {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

/// One value; `None` is Go's zero time.
fn single(field: Field, content: Content<'_>, depth: usize) -> Result<Option<Value>, String> {
    let wrong = || format!("{} has a value of the wrong type", field.name());
    Ok(Some(match (field.base(), content) {
        (Base::String, Content::Bytes(bytes)) => json!(utf8(bytes)?),
        (Base::Bytes, Content::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Base::Bool, Content::Number(number)) => json!(number != 0),
        (Base::Int32, Content::Number(number)) => json!(number as i32),
        (Base::Int64, Content::Number(number)) => json!(number as i64),
        (Base::Double, Content::Double(number)) => json!(number),
        (Base::Quantity, Content::Bytes(bytes)) => {
            let mut text = "";
            for item in Items(bytes) {
                if let (1, Content::Bytes(bytes)) = item? {
                    text = utf8(bytes)?;
                }
            }
            json!(text)
        }
        (Base::IntOrString, Content::Bytes(bytes)) => {
            let (mut is_text, mut number, mut text) = (false, 0, "");
            for item in Items(bytes) {
                match item? {
                    (1, Content::Number(kind)) => is_text = kind == 1,
                    (2, Content::Number(value)) => number = value as i32,
                    (3, Content::Bytes(bytes)) => text = utf8(bytes)?,
                    _ => {}
                }
            }
            if is_text { json!(text) } else { json!(number) }
        }
        (base @ (Base::Time | Base::MicroTime), Content::Bytes(bytes)) => {
            let (mut seconds, mut nanos) = (None, 0);
            for item in Items(bytes) {
                match item? {
                    (1, Content::Number(value)) => seconds = Some(value as i64),
                    (2, Content::Number(value)) => nanos = value as i32,
                    _ => {}
                }
            }
            let Some(seconds) = seconds else { return Ok(None) };
            let time = Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
            let text =
                if base == Base::Time { meta::format_time(time) } else { meta::format_micro_time(time) };
            json!(text)
        }
        (Base::Any, Content::Bytes(bytes)) => {
            let mut raw = &[][..];
            for item in Items(bytes) {
                if let (1, Content::Bytes(bytes)) = item? {
                    raw = bytes;
                }
            }
            if raw.is_empty() {
                return Ok(None);
            }
            serde_json::from_slice(raw).map_err(|error| error.to_string())?
        }
        (Base::Object, Content::Bytes(bytes)) => {
            let schema = field.object_type().ok_or_else(wrong)?;
            let mut inner = Map::new();
            message(bytes, schema, &schema.name().to_ascii_lowercase(), &mut inner, depth + 1)?;
            Value::Object(inner)
        }
        _ => return Err(wrong()),
    }))
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one by one; ends after the first error.
struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn item(&mut self) -> Option<(u64, Content<'a>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Number(self.varint()?),
            1 => Content::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u64, Content<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item().ok_or_else(|| "the protobuf message breaks off or is malformed".to_owned());
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests;

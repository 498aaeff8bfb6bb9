//! JSON and YAML texts as values, remembering which keys occurred twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, MOST_COMPLAINTS};

/// A text's value and the paths of its duplicate keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The value; the last of duplicate keys counts.
    pub value: Value,
    /// Paths such as `spec.containers[0].image`.
    pub duplicates: Vec<String>,
}

/// Reads JSON.
pub(super) fn json(bytes: &[u8]) -> Result<Document, DecodeError> {
    serde_json::from_slice(bytes)
        .map_err(|e| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {e}")))
}

/// Reads one YAML document as Kubernetes reads YAML: `0644` is octal, `yes` and `on` are booleans.
pub fn yaml_document(text: &str) -> Result<Document, DecodeError> {
    serde_saphyr::from_str_with_options(text, yaml_options())
        .map_err(|e| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {e}")))
}

/// How YAML is read everywhere in sampan.
pub fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        strict_booleans: false,
        with_snippet: false,
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

fn plain<E>(value: impl Into<Value>) -> Result<Document, E> {
    Ok(Document { value: value.into(), duplicates: vec![] })
}

/// Takes over what was found below `step`.
fn inherit(duplicates: &mut Vec<String>, step: &str, item: &Document) {
    let room = MOST_COMPLAINTS.saturating_sub(duplicates.len());
    duplicates.extend(item.duplicates.iter().take(room).map(|path| join(step, path)));
}

fn join(step: &str, path: &str) -> String {
    if path.starts_with('[') { format!("{step}{path}") } else { format!("{step}.{path}") }
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Document, E> {
        plain(v)
    }

    fn visit_i64<E>(self, v: i64) -> Result<Document, E> {
        plain(v)
    }

    fn visit_u64<E>(self, v: u64) -> Result<Document, E> {
        plain(v)
    }

    fn visit_f64<E>(self, v: f64) -> Result<Document, E> {
        plain(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Document, E> {
        plain(v)
    }

    fn visit_string<E>(self, v: String) -> Result<Document, E> {
        plain(v)
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        plain(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        plain(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        Document::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
        let (mut items, mut duplicates) = (Vec::new(), Vec::new());
        while let Some(item) = seq.next_element::<Document>()? {
            let step = format!("[{}]", items.len());
            inherit(&mut duplicates, &step, &item);
            items.push(item.value);
        }
        Ok(Document { value: Value::Array(items), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Document, A::Error> {
        let (mut map, mut duplicates) = (Map::new(), Vec::new());
        while let Some(key) = entries.next_key::<String>()? {
            let item = entries.next_value::<Document>()?;
            inherit(&mut duplicates, &key, &item);
            if map.insert(key.clone(), item.value).is_some() && duplicates.len() < MOST_COMPLAINTS {
                duplicates.push(key);
            }
        }
        Ok(Document { value: Value::Object(map), duplicates })
    }
}

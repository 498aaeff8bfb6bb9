//! Decoding what a client sent: JSON or YAML into an object of a kind, finding unknown and duplicate fields and
//! wrong types, with the texts of upstream's decoder.
//!
//! As upstream, unknown fields are dropped (and reported), `null` means "not given", and quantities and times are
//! stored in their canonical form.

mod document;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use serde_json::Value;

use super::types::{Base, Field, Shape, Type, type_of};
use crate::{field_error::go_quote, meta, quantity::Quantity, scheme::Resource, status::Status};

pub use document::{yaml_document, yaml_options};

/// An object with what was odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, normalised.
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`: errors with fieldValidation=Strict, warnings with Warn.
    pub strict: Vec<String>,
}

impl Decoded {
    /// The answer for fieldValidation=Strict, when something was odd.
    pub fn strict_error(&self, resource: &Resource) -> Option<Status> {
        if self.strict.is_empty() {
            return None;
        }
        Some(cannot_be_handled(resource, &format!("strict decoding error: {}", self.strict.join(", "))))
    }
}

/// Why bytes are no object of the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither JSON nor YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type; the text is upstream's.
    #[error("{0}")]
    Type(String),
}

impl DecodeError {
    /// The answer to send: 400.
    pub fn to_status(&self, resource: &Resource) -> Status {
        match self {
            Self::Syntax(text) => Status::bad_request(text.clone()),
            Self::Type(text) => cannot_be_handled(resource, text),
        }
    }
}

fn cannot_be_handled(resource: &Resource, why: &str) -> Status {
    let (kind, version) = (resource.kind, go_quote(resource.version));
    Status::bad_request(format!("{kind} in version {version} cannot be handled as a {kind}: {why}"))
}

/// Decodes JSON.
pub fn decode_json(resource: &Resource, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_document(resource, document::json(bytes)?)
}

/// Decodes YAML (which JSON is, too).
pub fn decode_yaml(resource: &Resource, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::Syntax(format!("yaml: {e}")))?;
    decode_document(resource, yaml_document(text)?)
}

fn decode_document(resource: &Resource, document: document::Document) -> Result<Decoded, DecodeError> {
    let mut decoded = decode_value(resource, document.value)?;
    let duplicates = document.duplicates.iter().map(|path| format!("duplicate field {}", go_quote(path)));
    decoded.strict.splice(0..0, duplicates);
    Ok(decoded)
}

/// Checks and normalises an object that is already a value (the outcome of a patch).
pub fn decode_value(resource: &Resource, object: Value) -> Result<Decoded, DecodeError> {
    match type_of(resource) {
        Some(kind) => decode_as(kind, object),
        None => Ok(Decoded { object, strict: vec![] }),
    }
}

/// The same for a kind that is no resource of its own (`Scale`, `Eviction`, `DeleteOptions`).
pub fn decode_as(kind: Type, mut object: Value) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { strict: vec![], path: String::new(), go_path: String::new() };
    if !object.is_object() {
        let got = json_type(&object);
        return Err(DecodeError::Type(format!(
            "json: cannot unmarshal {got} into Go value of type {}",
            kind.go_name()
        )));
    }
    walk.object(kind, &mut object)?;
    Ok(Decoded { object, strict: walk.strict })
}

fn json_type(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if n.is_f64() => format!("number {n}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

/// How many unknown and how many duplicate fields are named (upstream's bound): a body may hold a million.
const MOST_COMPLAINTS: usize = 100;

struct Walk {
    strict: Vec<String>,
    /// With indices and keys, for messages about fields.
    path: String,
    /// Without them, as Go's decoder counts.
    go_path: String,
}

impl Walk {
    fn within<T>(&mut self, step: &str, go_step: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        let lengths = (self.path.len(), self.go_path.len());
        if !step.is_empty() {
            if !self.path.is_empty() && !step.starts_with('[') {
                self.path.push('.');
            }
            self.path.push_str(step);
        }
        if !go_step.is_empty() {
            if !self.go_path.is_empty() {
                self.go_path.push('.');
            }
            self.go_path.push_str(go_step);
        }
        let out = run(self);
        self.path.truncate(lengths.0);
        self.go_path.truncate(lengths.1);
        out
    }

    fn object(&mut self, kind: Type, value: &mut Value) -> Result<(), DecodeError> {
        let Value::Object(map) = value else { return Ok(()) };
        let mut unknown = Vec::new();
        map.retain(|name, value| {
            let known = kind.field(name).is_some();
            if !known {
                unknown.push(name.clone());
            }
            known && !value.is_null()
        });
        for name in unknown {
            let path = if self.path.is_empty() { name } else { format!("{}.{name}", self.path) };
            if self.strict.len() < MOST_COMPLAINTS {
                self.strict.push(format!("unknown field {}", go_quote(&path)));
            }
        }
        for (name, value) in map {
            if let Some(field) = kind.field(name) {
                self.within(name, name, |w| w.shaped(kind, field, field.shape(), value))?;
            }
        }
        Ok(())
    }

    fn shaped(
        &mut self,
        owner: Type,
        field: Field,
        shape: Shape,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        match (shape, &mut *value) {
            (Shape::One, _) => self.single(owner, field, value),
            (Shape::List, Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if item.is_null() {
                        *item = zero(field.base());
                    }
                    self.within(&format!("[{i}]"), "", |w| w.single(owner, field, item))?;
                }
                Ok(())
            }
            (Shape::Map | Shape::MapOfLists, Value::Object(map)) => {
                let inner = if shape == Shape::Map { Shape::One } else { Shape::List };
                for (key, item) in map {
                    if item.is_null() && inner == Shape::One {
                        *item = zero(field.base());
                    }
                    self.within(key, "", |w| w.shaped(owner, field, inner, item))?;
                }
                Ok(())
            }
            _ => Err(self.mismatch(owner, value, &go_type(field, shape))),
        }
    }

    fn single(&mut self, owner: Type, field: Field, value: &mut Value) -> Result<(), DecodeError> {
        let base = field.base();
        let fits = match base {
            Base::String => value.is_string(),
            Base::Bool => value.is_boolean(),
            Base::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Base::Int64 => value.as_i64().is_some(),
            Base::Double => value.is_number(),
            Base::Any => true,
            Base::Object => {
                let Some(kind) = field.object_type().filter(|_| value.is_object()) else {
                    return Err(self.mismatch(owner, value, &go_type(field, Shape::One)));
                };
                return self.object(kind, value);
            }
            Base::Bytes => return self.bytes(owner, field, value),
            Base::Quantity => return quantity(value),
            Base::IntOrString => match value {
                Value::String(_) => true,
                Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => true,
                _ => return Err(go_value(value, "int32")),
            },
            Base::Time | Base::MicroTime => return time(value, base),
        };
        if fits { Ok(()) } else { Err(self.mismatch(owner, value, &go_type(field, Shape::One))) }
    }

    fn bytes(&self, owner: Type, field: Field, value: &Value) -> Result<(), DecodeError> {
        let Some(text) = value.as_str() else {
            return Err(self.mismatch(owner, value, &go_type(field, Shape::One)));
        };
        let engine = base64::engine::general_purpose::STANDARD;
        let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match engine.decode(clean.as_bytes()) {
            Ok(_) => Ok(()),
            Err(e) => {
                let at = match e {
                    base64::DecodeError::InvalidByte(at, _)
                    | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    _ => clean.len() - clean.len() % 4,
                };
                Err(DecodeError::Type(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    fn mismatch(&self, owner: Type, value: &Value, go_type: &str) -> DecodeError {
        let (got, owner) = (json_type(value), owner.short_name());
        DecodeError::Type(format!(
            "json: cannot unmarshal {got} into Go struct field {owner}.{} of type {go_type}",
            self.go_path
        ))
    }
}

fn zero(base: Base) -> Value {
    match base {
        Base::Object => Value::Object(serde_json::Map::new()),
        Base::Bool => Value::Bool(false),
        Base::Int32 | Base::Int64 | Base::Double | Base::IntOrString => 0.into(),
        Base::Quantity => "0".into(),
        Base::String | Base::Bytes => "".into(),
        Base::Time | Base::MicroTime | Base::Any => Value::Null,
    }
}

fn go_type(field: Field, shape: Shape) -> String {
    let base = match field.base() {
        Base::String => "string".into(),
        Base::Bytes => "[]uint8".into(),
        Base::Bool => "bool".into(),
        Base::Int32 => "int32".into(),
        Base::Int64 => "int64".into(),
        Base::Double => "float64".into(),
        Base::Quantity => "resource.Quantity".into(),
        Base::IntOrString => "intstr.IntOrString".into(),
        Base::Time => "v1.Time".into(),
        Base::MicroTime => "v1.MicroTime".into(),
        Base::Any => "interface {}".into(),
        Base::Object => field.object_type().map_or("object", Type::go_name).to_owned(),
    };
    match shape {
        Shape::One => base,
        Shape::List => format!("[]{base}"),
        Shape::Map => format!("map[string]{base}"),
        Shape::MapOfLists => format!("map[string][]{base}"),
    }
}

fn go_value(value: &Value, go_type: &str) -> DecodeError {
    DecodeError::Type(format!("json: cannot unmarshal {} into Go value of type {go_type}", json_type(value)))
}

fn quantity(value: &mut Value) -> Result<(), DecodeError> {
    let parsed = Quantity::from_value(value).map_err(|e| DecodeError::Type(e.to_string()))?;
    *value = parsed.to_value();
    Ok(())
}

fn time(value: &mut Value, base: Base) -> Result<(), DecodeError> {
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text,
        other => return Err(go_value(other, "string")),
    };
    let Some(time) = meta::parse_time(text) else {
        let layout =
            if base == Base::Time { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
        let quoted = go_quote(text);
        return Err(DecodeError::Type(format!(
            "parsing time {quoted} as \"{layout}\": cannot parse {quoted} as \"2006\""
        )));
    };
    *value = Value::String(if base == Base::Time {
        meta::format_time(time)
    } else {
        meta::format_micro_time(time)
    });
    Ok(())
}

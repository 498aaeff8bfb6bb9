//! The posted reviews in Kubernetes' protobuf form, which kubectl's typed clients send (`auth whoami`, `auth can-i`,
//! `create token`): the envelope and the few messages that can occur, turned into the JSON that everything else reads.
//!
//! Field numbers: `generated.proto` of authentication.k8s.io/v1 and authorization.k8s.io/v1.

use serde_json::{Map, Value};

/// What precedes every object in this form.
const MAGIC: &[u8] = b"k8s\0";
/// The messages are nested three deep; whatever is deeper is not one of them.
const MAX_DEPTH: usize = 8;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Number,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    /// A map from text to a message whose first field is a list of texts (`extra`).
    Extra,
}

/// Number, JSON name, content.
type Field = (u64, &'static str, Kind);

const METADATA: &[Field] = &[(1, "name", Kind::Text), (2, "generateName", Kind::Text), (3, "namespace", Kind::Text)];
const BOUND: &[Field] =
    &[(1, "kind", Kind::Text), (2, "apiVersion", Kind::Text), (3, "name", Kind::Text), (4, "uid", Kind::Text)];
const REQUIREMENT: &[Field] = &[(1, "key", Kind::Text), (2, "operator", Kind::Text), (3, "values", Kind::Texts)];
const SELECTOR: &[Field] = &[(1, "rawSelector", Kind::Text), (2, "requirements", Kind::Messages(REQUIREMENT))];
const RESOURCE: &[Field] = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
    (8, "fieldSelector", Kind::Message(SELECTOR)),
    (9, "labelSelector", Kind::Message(SELECTOR)),
];
const NON_RESOURCE: &[Field] = &[(1, "path", Kind::Text), (2, "verb", Kind::Text)];
const ACCESS: &[Field] = &[
    (1, "resourceAttributes", Kind::Message(RESOURCE)),
    (2, "nonResourceAttributes", Kind::Message(NON_RESOURCE)),
    (3, "user", Kind::Text),
    (4, "groups", Kind::Texts),
    (5, "extra", Kind::Extra),
    (6, "uid", Kind::Text),
];
const RULES: &[Field] = &[(1, "namespace", Kind::Text)];
const TOKEN: &[Field] = &[(1, "token", Kind::Text), (2, "audiences", Kind::Texts)];
const TOKEN_REQUEST: &[Field] = &[
    (1, "audiences", Kind::Texts),
    (3, "boundObjectRef", Kind::Message(BOUND)),
    (4, "expirationSeconds", Kind::Number),
];
const UNKNOWN: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];

/// Every review has `metadata` and (but one) `spec`; its `status` is ours.
fn spec_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => ACCESS,
        "SelfSubjectRulesReview" => RULES,
        "TokenReview" => TOKEN,
        "TokenRequest" => TOKEN_REQUEST,
        "SelfSubjectReview" => &[],
        _ => return None,
    })
}

/// Reads an object of one of the review kinds. The error says what is wrong.
pub(super) fn decode(bytes: &[u8], expected: &str) -> Result<Value, &'static str> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or("it does not begin with the mark of Kubernetes' protobuf")?;
    let (mut object, mut raw) = (Map::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Content::Bytes(meta)) => {
                if let Value::Object(meta) = message(meta, UNKNOWN, 0)? {
                    object.extend(meta);
                }
            }
            (2, Content::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let spec = spec_of(expected).ok_or("its kind is not posted in protobuf")?;
    for field in Fields(raw) {
        match field? {
            (1, Content::Bytes(bytes)) => {
                object.insert("metadata".to_owned(), message(bytes, METADATA, 0)?);
            }
            (2, Content::Bytes(bytes)) if !spec.is_empty() => {
                object.insert("spec".to_owned(), message(bytes, spec, 0)?);
            }
            _ => {}
        }
    }
    Ok(Value::Object(object))
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one by one.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
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
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Content<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut read = || {
            let tag = self.varint()?;
            let content = match tag & 7 {
                0 => Content::Number(self.varint()?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    let (bytes, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    Content::Bytes(bytes)
                }
                wide @ (1 | 5) => {
                    let (bytes, rest) = self.0.split_at_checked(if wide == 1 { 8 } else { 4 })?;
                    self.0 = rest;
                    Content::Bytes(bytes)
                }
                _ => return None,
            };
            Some((tag >> 3, content))
        };
        let field = read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or("it is cut off or malformed"))
    }
}

fn text(bytes: &[u8]) -> Result<Value, &'static str> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_| "a text in it is not UTF-8")
}

fn message(bytes: &[u8], fields: &[Field], depth: usize) -> Result<Value, &'static str> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply");
    }
    let mut out = Map::new();
    for field in Fields(bytes) {
        let (number, content) = field?;
        let Some((_, name, kind)) = fields.iter().find(|(have, _, _)| *have == number) else { continue };
        let mut push = |item: Value| match out.entry(*name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(item),
            other => *other = item,
        };
        let value = match (kind, content) {
            (Kind::Text, Content::Bytes(bytes)) => text(bytes)?,
            (Kind::Number, Content::Number(number)) => number.cast_signed().into(),
            (Kind::Message(fields), Content::Bytes(bytes)) => message(bytes, fields, depth + 1)?,
            (Kind::Texts, Content::Bytes(bytes)) => {
                push(text(bytes)?);
                continue;
            }
            (Kind::Messages(fields), Content::Bytes(bytes)) => {
                push(message(bytes, fields, depth + 1)?);
                continue;
            }
            (Kind::Extra, Content::Bytes(bytes)) => {
                let entry = message(bytes, &[(1, "key", Kind::Text), (2, "value", Kind::Message(&[(1, "items", Kind::Texts)]))], depth + 1)?;
                let key = entry["key"].as_str().unwrap_or_default().to_owned();
                let map = out.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                map[key] = entry["value"]["items"].clone();
                continue;
            }
            _ => return Err("a field in it has the wrong type"),
        };
        out.insert((*name).to_owned(), value);
    }
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"authorization.k8s.io/v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_review_is_read() {
        let resource = [field(1, b"default"), field(2, b"list"), field(5, b"pods")].concat();
        let extra = [field(1, b"scopes"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat();
        let spec = [field(1, &resource), field(3, b"ann"), field(4, b"dev"), field(4, b"ops"), field(5, &extra)].concat();
        let raw = [field(1, &field(1, b"x")), field(2, &spec)].concat();
        assert_eq!(
            decode(&envelope("SubjectAccessReview", &raw), "SubjectAccessReview").unwrap(),
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {"name": "x"},
                "spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}, "user": "ann",
                    "groups": ["dev", "ops"], "extra": {"scopes": ["a", "b"]}}})
        );
    }

    #[test]
    fn numbers_are_read_and_what_is_unknown_is_passed_over() {
        let spec = [field(1, b"vault"), vec![4 << 3, 0x90, 0x1c], field(9, b"new"), vec![10 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let object = decode(&envelope("TokenRequest", &field(2, &spec)), "TokenRequest").unwrap();
        assert_eq!(object["spec"], json!({"audiences": ["vault"], "expirationSeconds": 3600}));
    }

    #[test]
    fn whatever_is_cut_off_is_an_error() {
        let whole = envelope("TokenRequest", &field(2, &field(1, b"vault")));
        for length in 0..whole.len() {
            let _ = decode(&whole[..length], "TokenRequest");
        }
        assert!(decode(&whole[..20], "TokenRequest").is_err());
        assert!(decode(b"{}", "TokenRequest").is_err());
        assert!(decode(&[MAGIC, &[0xff; 32]].concat(), "TokenRequest").is_err());
    }
}

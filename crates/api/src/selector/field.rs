//! Field selectors: `status.phase=Running,metadata.name!=x`, and the fields that each resource offers.

use std::borrow::Cow;

use serde_json::Value;

use super::Error;
use crate::{meta, scheme::Resource};

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's label, e.g. `spec.nodeName`.
    pub field: String,
    /// The value to compare with.
    pub value: String,
    /// True for `!=`.
    pub negated: bool,
}

/// All comparisons must hold; none = everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The comparisons.
    pub requirements: Vec<FieldRequirement>,
}

const METADATA: &[&str] = &["metadata.name", "metadata.namespace"];

/// The fields by which objects of a resource can be selected.
pub fn supported_fields(resource: &Resource) -> &'static [&'static str] {
    match (resource.group, resource.kind) {
        ("", "Pod") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["metadata.name", "spec.unschedulable"],
        ("", "Namespace") => &["metadata.name", "status.phase"],
        ("", "Secret") => &["metadata.name", "metadata.namespace", "type"],
        ("", "Service") => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => {
            &["metadata.name", "metadata.namespace", "status.replicas"]
        }
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
            "metadata.namespace",
            "metadata.name",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
            "metadata.namespace",
            "metadata.name",
        ],
        ("batch", "Job") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", _) => &["metadata.name", "spec.signerName"],
        _ => METADATA,
    }
}

/// The value of a field as text, "" when absent.
pub fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    match field {
        "source" => return Cow::Borrowed(meta::str_at(object, "/source/component")),
        "status.podIPs" => {
            let ips: Vec<&str> =
                meta::list(object, "/status/podIPs").iter().map(|ip| meta::str_of(ip, "ip")).collect();
            return Cow::Owned(ips.join(","));
        }
        "status.successful" => {
            let n = object.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0);
            return Cow::Owned(n.to_string());
        }
        "reportingComponent" | "reportingController" => {
            let reporting = meta::str_of(object, field);
            let other = meta::str_of(object, "reportingComponent");
            return Cow::Borrowed(if reporting.is_empty() { other } else { reporting });
        }
        _ => {}
    }
    let value = field.split('.').try_fold(object, |at, part| at.get(part));
    match value {
        Some(Value::String(s)) => Cow::Borrowed(s),
        Some(Value::Bool(b)) => Cow::Owned(b.to_string()),
        Some(Value::Number(n)) => Cow::Owned(n.to_string()),
        _ if matches!(field, "spec.unschedulable" | "spec.hostNetwork") => Cow::Borrowed("false"),
        _ if field == "status.replicas" => Cow::Borrowed("0"),
        _ => Cow::Borrowed(""),
    }
}

impl FieldSelector {
    /// Parses the query form; `\` escapes `\`, `,` and `=`. Fields are not checked: [`FieldSelector::check`] does.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let unreadable =
                || Error::Field(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, negated, raw) = split_term(term).ok_or_else(unreadable)?;
            requirements.push(FieldRequirement { field: field.to_owned(), value: unescape(raw)?, negated });
        }
        Ok(Self { requirements })
    }

    /// Refuses fields that the resource does not offer; rewrites old names (`spec.host`).
    pub fn check(mut self, resource: &Resource) -> Result<Self, Error> {
        let supported = supported_fields(resource);
        for r in &mut self.requirements {
            if resource.kind == "Pod" && r.field == "spec.host" {
                r.field = "spec.nodeName".into();
            }
            if resource.kind == "Namespace" && r.field == "name" {
                r.field = "metadata.name".into();
            }
            if !supported.contains(&r.field.as_str()) {
                let field = r.field.clone();
                let general = supported == METADATA;
                return Err(if general {
                    Error::UnknownField(field)
                } else {
                    Error::UnsupportedField(field)
                });
            }
        }
        Ok(self)
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that `field` must have, when the selector demands one (`metadata.name=x` reads one object).
    pub fn requires_exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|r| (field_value(object, &r.field) == r.value) != r.negated)
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", r.field, if r.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..i], negated, value));
            }
        }
    }
    None
}

fn unescape(raw: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return Err(Error::Field(format!("invalid escape sequence: \\{e}"))),
                None => return Err(Error::Field("invalid escape sequence: \\".into())),
            },
            ',' | '=' => return Err(Error::Field(format!("unescaped rune in field selector: {c}"))),
            c => out.push(c),
        }
    }
    Ok(out)
}

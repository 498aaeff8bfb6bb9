//! Manifests: files with one or more YAML or JSON documents, as people write them. Errors name the document and the
//! line of the file.

use serde_json::Value;

use crate::{
    meta,
    schema::decode::yaml_document,
    scheme::{self, Resource},
};

#[cfg(test)]
mod tests;

/// Larger manifests are refused (bytes); upstream's API takes 3 MiB for one object.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One object of a manifest, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which document of the file, from 1.
    pub index: usize,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The object.
    pub object: Value,
    /// Paths of keys that occur twice.
    pub duplicates: Vec<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too large.
    #[error("the manifest has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// Not YAML or JSON.
    #[error("document {index} (line {line}): {reason}")]
    Syntax {
        /// Which document.
        index: usize,
        /// The line in the file, as exactly as is known.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Not a Kubernetes object.
    #[error("document {index} (line {line}): {field}: {reason}")]
    Field {
        /// Which document.
        index: usize,
        /// The line on which the document begins.
        line: usize,
        /// The field that is missing or wrong.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing in it.
    #[error("no objects in the manifest")]
    Empty,
}

impl Document {
    fn error(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::Field { index: self.index, line: self.line, field: field.into(), reason: reason.into() }
    }

    /// The resource of the object.
    pub fn resource(&self) -> Result<&'static Resource, Error> {
        let (api_version, kind) = (meta::api_version(&self.object), meta::kind(&self.object));
        scheme::find_api_version(api_version, kind).ok_or_else(|| {
            self.error("kind", format!("no matches for kind \"{kind}\" in version \"{api_version}\""))
        })
    }
}

/// Reads every object of a manifest; `List` objects are taken apart. Empty documents are skipped.
pub fn parse(text: &str) -> Result<Vec<Document>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(text.len()));
    }
    let mut out = Vec::new();
    for (index, (line, source)) in split(text).into_iter().enumerate() {
        let index = index + 1;
        let parsed = yaml_document(source).map_err(|e| {
            let (at, reason) = located(&e.to_string());
            Error::Syntax { index, line: line + at.saturating_sub(1), reason }
        })?;
        if parsed.value.is_null() {
            continue;
        }
        expand(Document { index, line, object: parsed.value, duplicates: parsed.duplicates }, &mut out)?;
    }
    if out.is_empty() { Err(Error::Empty) } else { Ok(out) }
}

fn expand(document: Document, out: &mut Vec<Document>) -> Result<(), Error> {
    if !document.object.is_object() {
        return Err(document.error("document", "an object with apiVersion and kind is expected"));
    }
    for (field, value) in
        [("apiVersion", meta::api_version(&document.object)), ("kind", meta::kind(&document.object))]
    {
        if value.is_empty() {
            return Err(document.error(field, format!("{field} not set")));
        }
    }
    if !meta::kind(&document.object).ends_with("List") || !document.object["items"].is_array() {
        out.push(document);
        return Ok(());
    }
    for item in meta::items(&document.object, "items") {
        let inner = Document { object: item.clone(), duplicates: vec![], ..document };
        if meta::kind(item).ends_with("List") {
            return Err(inner.error("items", "a list within a list"));
        }
        expand(inner, out)?;
    }
    out.iter_mut()
        .filter(|d| d.index == document.index)
        .take(1)
        .for_each(|d| d.duplicates.clone_from(&document.duplicates));
    Ok(())
}

/// Documents with the line on which each begins. A separator is a line `---`, alone or followed by a blank.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") || bare.starts_with("---\t") {
            out.push((start_line, &text[start..at]));
            let comment = bare[3..].trim_start().is_empty() || bare[3..].trim_start().starts_with('#');
            start = if comment { at + line.len() } else { at + 3 };
            start_line = if comment { number + 2 } else { number + 1 };
        }
        at += line.len();
    }
    out.push((start_line, &text[start..]));
    out.retain(|(_, source)| {
        source.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))
    });
    out
}

/// The line that a parser's message names, and the message.
fn located(message: &str) -> (usize, String) {
    let line = message
        .find("line ")
        .and_then(|at| message[at + 5..].split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|n| n.parse().ok());
    (line.unwrap_or(1), message.to_owned())
}

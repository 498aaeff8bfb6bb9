//! Which form of an answer a client accepts, and in which form it sends.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use sampan_api::Status;

use crate::query::Query;

/// What this server writes and reads.
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// The shape of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Objects as they are.
    #[default]
    Object,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// Metadata alone.
    PartialMetadata,
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// YAML instead of JSON.
    pub yaml: bool,
    /// The shape.
    pub form: Form,
    /// Indented JSON.
    pub pretty: bool,
}

impl Accepted {
    /// Reads `Accept`. `transforms` says whether tables and partial metadata can be had here.
    ///
    /// # Errors
    /// 406 when nothing that is accepted can be had.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query, transforms: bool) -> Result<Self, Status> {
        let pretty = match query.get("pretty") {
            Some(_) => query.flag("pretty"),
            None => headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).is_some_and(|agent| {
                ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
            }),
        };
        let header: Vec<&str> =
            headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let header = header.join(",");
        if header.trim().is_empty() {
            return Ok(Self { pretty, ..Self::default() });
        }
        let mut clauses: Vec<(f32, &str)> = header
            .split(',')
            .map(|clause| (quality(clause), clause.trim()))
            .filter(|(q, _)| *q > 0.0)
            .collect();
        clauses.sort_by(|one, other| other.0.total_cmp(&one.0));
        clauses
            .iter()
            .find_map(|(_, clause)| Self::clause(clause, transforms))
            .map(|accepted| Self { pretty, ..accepted })
            .ok_or_else(|| Status::not_acceptable(&MEDIA_TYPES))
    }

    fn clause(clause: &str, transforms: bool) -> Option<Self> {
        let mut pieces = clause.split(';').map(str::trim);
        let yaml = match pieces.next()?.to_ascii_lowercase().as_str() {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" | "application/x-yaml" | "text/yaml" => true,
            _ => return None,
        };
        let (mut kind, mut group, mut version) = ("", "", "");
        for (name, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            match name.trim() {
                "as" => kind = value.trim(),
                "g" => group = value.trim(),
                "v" => version = value.trim(),
                _ => {}
            }
        }
        let form = match kind {
            "" => Form::Object,
            _ if !transforms || group != "meta.k8s.io" || version != "v1" => return None,
            "Table" => Form::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::PartialMetadata,
            _ => return None,
        };
        Some(Self { yaml, form, pretty: false })
    }
}

fn quality(clause: &str) -> f32 {
    let q = clause.split(';').skip(1).find_map(|piece| piece.trim().strip_prefix("q="));
    q.and_then(|q| q.trim().parse().ok()).unwrap_or(1.0)
}

/// How a request's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// JSON; also when nothing is said.
    Json,
    /// YAML.
    Yaml,
}

/// What bodies may be (protobuf has become JSON before anybody asks).
const BODY_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Media {
    /// Reads `Content-Type`.
    ///
    /// # Errors
    /// 415 for everything else.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "application/json" | "*/*" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Self::Yaml),
            _ => Err(Status::unsupported_media_type(&BODY_TYPES)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accept(header: &str) -> Result<Accepted, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header.parse().unwrap());
        Accepted::negotiate(&headers, &Query::default(), true)
    }

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl).unwrap().form, Form::Table);
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf, application/json").unwrap(),
            Accepted::default()
        );
        assert!(accept("application/json;q=0.2, application/yaml;q=0.9").unwrap().yaml);
        assert_eq!(
            accept("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").unwrap().form,
            Form::PartialMetadata
        );
        let failure = accept("application/vnd.kubernetes.protobuf").unwrap_err();
        assert_eq!(failure.code, 406);
        assert_eq!(
            failure.message,
            "only the following media types are accepted: application/json, application/yaml"
        );
    }
}

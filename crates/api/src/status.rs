//! `metav1.Status`: how the API says that something failed (or was done), with upstream's texts, reasons and codes.
//!
//! Sources: apimachinery `api/errors` (messages), `apis/meta/v1` (reasons). Every builder names the HTTP code.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::field_error::{self, FieldError};

/// One cause in the details of a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    /// Machine-readable reason, e.g. `FieldValueRequired`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field concerned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the status is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its kind, or (as upstream does in most cases) the plural of its resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Causes, for errors with several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which to try again; 0 = not given.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A Status object. `code` is also the HTTP status code of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Failure` or `Success`.
    pub status: String,
    /// For people.
    pub message: String,
    /// Machine-readable reason, e.g. `NotFound`.
    pub reason: String,
    /// What it is about.
    pub details: Option<StatusDetails>,
    /// HTTP code.
    pub code: u16,
    /// `metadata.continue` (only in `Expired` answers to continued lists).
    #[serde(skip)]
    pub continue_token: String,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            status: "Failure".into(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code: 500,
            continue_token: String::new(),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

fn failure(code: u16, reason: &str, message: String, details: Option<StatusDetails>) -> Status {
    Status { message, reason: reason.into(), details, code, ..Status::default() }
}

fn details(group: &str, kind: &str, name: &str) -> StatusDetails {
    StatusDetails { name: name.into(), group: group.into(), kind: kind.into(), ..StatusDetails::default() }
}

fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

impl Status {
    /// The object to send.
    pub fn to_value(&self) -> Value {
        let mut metadata = json!({});
        if !self.continue_token.is_empty() {
            metadata["continue"] = self.continue_token.clone().into();
        }
        let mut out =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": self.status});
        if !self.message.is_empty() {
            out["message"] = self.message.clone().into();
        }
        if !self.reason.is_empty() {
            out["reason"] = self.reason.clone().into();
        }
        if let Some(details) = &self.details {
            out["details"] = serde_json::to_value(details).unwrap_or_default();
        }
        if self.code != 0 {
            out["code"] = self.code.into();
        }
        out
    }

    /// 200: what a deletion answers when the object is gone at once.
    pub fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Self {
        let mut d = details(group, plural, name);
        d.uid = uid.into();
        Self { status: "Success".into(), details: Some(d), code: 0, ..Self::default() }
    }

    /// 200 or 201: `Success` without more (bindings, evictions: 201).
    pub fn success(code: u16) -> Self {
        Self { status: "Success".into(), code, ..Self::default() }
    }

    /// 404 for one object: `pods "x" not found`.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(plural, group), field_error::go_quote(name));
        failure(404, "NotFound", message, Some(details(group, plural, name)))
    }

    /// 404 for a path that means nothing here.
    pub fn path_not_found() -> Self {
        let message = "the server could not find the requested resource".into();
        failure(404, "NotFound", message, Some(StatusDetails::default()))
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {} already exists", qualified(plural, group), field_error::go_quote(name));
        failure(409, "AlreadyExists", message, Some(details(group, plural, name)))
    }

    /// 409 for a `generateName` that collided again and again.
    pub fn generate_name_conflict(group: &str, plural: &str, name: &str, retry_after: i32) -> Self {
        let message = format!(
            "{} {} already exists, the server was not able to generate a unique name for the object",
            qualified(plural, group),
            field_error::go_quote(name)
        );
        let mut d = details(group, plural, name);
        d.retry_after_seconds = retry_after;
        failure(409, "AlreadyExists", message, Some(d))
    }

    /// 409: `Operation cannot be fulfilled on pods "x": <why>`.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            qualified(plural, group),
            field_error::go_quote(name)
        );
        failure(409, "Conflict", message, Some(details(group, plural, name)))
    }

    /// 409 for a stale `resourceVersion`.
    pub fn object_modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: `Pod "x" is invalid: <errors>`, one cause an error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut d = details(group, kind, name);
        d.causes = errors
            .iter()
            .map(|e| StatusCause {
                reason: e.kind.reason().into(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect();
        let head = format!("{} {} is invalid", qualified(kind, group), field_error::go_quote(name));
        let message =
            if errors.is_empty() { head } else { format!("{head}: {}", field_error::aggregate(errors)) };
        failure(422, "Invalid", message, Some(d))
    }

    /// 403: `pods "x" is forbidden: <why>`; without a name `pods is forbidden: <why>`; without a resource `forbidden: <why>`.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = match (plural.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", qualified(plural, group)),
            (false, false) => {
                format!("{} {} is forbidden: {why}", qualified(plural, group), field_error::go_quote(name))
            }
        };
        failure(403, "Forbidden", message, Some(details(group, plural, name)))
    }

    /// 401.
    pub fn unauthorized() -> Self {
        failure(401, "Unauthorized", "Unauthorized".into(), None)
    }

    /// 400.
    pub fn bad_request(why: impl Into<String>) -> Self {
        failure(400, "BadRequest", why.into(), None)
    }

    /// 405: `the server does not allow this method on the requested resource`.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".into();
        failure(405, "MethodNotAllowed", message, Some(StatusDetails::default()))
    }

    /// 405 for a resource that is there: `patch is not supported on resources of kind "pods"`.
    pub fn method_not_supported(group: &str, plural: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            field_error::go_quote(&qualified(plural, group))
        );
        failure(405, "MethodNotAllowed", message, Some(details(group, plural, "")))
    }

    /// 406, with the media types that would be acceptable.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        failure(406, "NotAcceptable", message, None)
    }

    /// 415, with the media types that are understood.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        failure(415, "UnsupportedMediaType", message, None)
    }

    /// 413: the body is larger than allowed.
    pub fn request_entity_too_large(why: impl AsRef<str>) -> Self {
        failure(413, "RequestEntityTooLarge", format!("Request entity is too large: {}", why.as_ref()), None)
    }

    /// 410 `Expired`: a resource version or continue token that is too old.
    pub fn expired(why: impl Into<String>) -> Self {
        failure(410, "Expired", why.into(), None)
    }

    /// 410 for a watch: `too old resource version: <requested> (<oldest>)`.
    pub fn too_old_resource_version(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410 for a continue token whose revision is compacted; `token` lets the client go on inconsistently.
    pub fn continue_expired(token: impl Into<String>) -> Self {
        let mut s = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new \
             list without the continue parameter, or use the continue token in this response to retrieve the \
             remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
             that were created, modified, or deleted between the time the first chunk was returned and now may show \
             up in the list.",
        );
        s.continue_token = token.into();
        s
    }

    /// 410 `Gone`.
    pub fn gone(why: impl Into<String>) -> Self {
        failure(410, "Gone", why.into(), None)
    }

    /// 504 for a resource version from the future: `Too large resource version: <requested>, current: <current>`.
    pub fn too_large_resource_version(requested: u64, current: u64, retry_after: i32) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let cause = StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        let d = StatusDetails {
            causes: vec![cause],
            retry_after_seconds: retry_after,
            ..StatusDetails::default()
        };
        failure(504, "Timeout", message, Some(d))
    }

    /// 504: `Timeout: <why>`.
    pub fn timeout(why: impl AsRef<str>, retry_after: i32) -> Self {
        let d = StatusDetails { retry_after_seconds: retry_after, ..StatusDetails::default() };
        failure(504, "Timeout", format!("Timeout: {}", why.as_ref()), Some(d))
    }

    /// 500 `ServerTimeout`: `The <action> operation against <resource> could not be completed at this time, please try again.`
    pub fn server_timeout(group: &str, plural: &str, action: &str, retry_after: i32) -> Self {
        let message = format!(
            "The {action} operation against {} could not be completed at this time, please try again.",
            qualified(plural, group)
        );
        let mut d = details(group, plural, "");
        d.retry_after_seconds = retry_after;
        failure(500, "ServerTimeout", message, Some(d))
    }

    /// 429, as an eviction answers that a disruption budget refuses.
    pub fn too_many_requests(why: impl Into<String>, retry_after: i32) -> Self {
        let d = StatusDetails { retry_after_seconds: retry_after, ..StatusDetails::default() };
        failure(429, "TooManyRequests", why.into(), Some(d))
    }

    /// 503.
    pub fn service_unavailable(why: impl Into<String>) -> Self {
        failure(503, "ServiceUnavailable", why.into(), None)
    }

    /// 500: `Internal error occurred: <why>`.
    pub fn internal_error(why: impl std::fmt::Display) -> Self {
        let cause = StatusCause { message: why.to_string(), ..StatusCause::default() };
        let d = StatusDetails { causes: vec![cause], ..StatusDetails::default() };
        failure(500, "InternalError", format!("Internal error occurred: {why}"), Some(d))
    }

    /// 501 for what this server does not do, said plainly.
    pub fn not_implemented(why: impl Into<String>) -> Self {
        failure(501, "NotImplemented", why.into(), None)
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str) -> Self {
        let d = self.details.get_or_insert_with(StatusDetails::default);
        d.causes.push(StatusCause { reason: reason.into(), message: message.into(), field: String::new() });
        self
    }
}

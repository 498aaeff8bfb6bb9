//! What the query says: list and watch options, dry runs, field validation, and the options of deletions.

use bytes::Bytes;
use sampan_api::selector::{FieldRequirement, FieldSelector, LabelSelector};
use sampan_api::{FieldError, Resource, Status};
use serde_json::Value;

use crate::context::RequestContext;
use crate::registry::continue_token::Continue;
use crate::registry::delete::{DeleteOptions, Propagation};
use crate::registry::list::{At, ListRequest, Selection};

/// What to do with unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse them.
    Strict,
}

fn invalid(kind: &str, errors: &[FieldError]) -> Status {
    Status::invalid("meta.k8s.io", kind, "", errors)
}

/// Whether everything but the write is done.
///
/// # Errors
/// 422 for anything but `All`.
pub(crate) fn dry_run(context: &RequestContext) -> Result<bool, Status> {
    let mut dry = false;
    for value in context.query.all("dryRun") {
        if value != "All" {
            let error = FieldError::not_supported("dryRun", value, &["All"]);
            return Err(invalid(options_kind(&context.info.verb), &[error]));
        }
        dry = true;
    }
    Ok(dry)
}

fn options_kind(verb: &str) -> &'static str {
    match verb {
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        "delete" | "deletecollection" => "DeleteOptions",
        _ => "CreateOptions",
    }
}

/// How strictly a body is read.
///
/// # Errors
/// 422 for an unknown word.
pub(crate) fn field_validation(context: &RequestContext) -> Result<FieldValidation, Status> {
    match context.query.get("fieldValidation").unwrap_or_default() {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => {
            let error = FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]);
            Err(invalid(options_kind(&context.info.verb), &[error]))
        }
    }
}

/// The selectors of a list or watch.
///
/// # Errors
/// 400 for selectors that cannot be parsed or name fields that this resource does not offer.
pub(crate) fn selection(context: &RequestContext, resource: &Resource) -> Result<Selection, Status> {
    let refuse = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    let labels = match context.query.non_empty("labelSelector") {
        Some(text) => LabelSelector::parse(text).map_err(|error| {
            refuse(&format!("unable to parse requirement: {error}").replace(
                "unable to parse requirement: unable to parse requirement: ",
                "unable to parse requirement: ",
            ))
        })?,
        None => LabelSelector::default(),
    };
    let mut fields = match context.query.non_empty("fieldSelector") {
        Some(text) => {
            let parsed = FieldSelector::parse(text).and_then(|fields| fields.check(resource));
            parsed.map_err(|error| refuse(&error))?
        }
        None => FieldSelector::default(),
    };
    // `/api/v1/watch/.../pods/x`: it was authorized as a watch of that object.
    if !context.info.name.is_empty() {
        fields.requirements.push(FieldRequirement {
            field: "metadata.name".into(),
            value: context.info.name.clone(),
            negated: false,
        });
    }
    Ok(Selection { labels, fields })
}

/// A resource version: `None` when it is not given.
fn resource_version(context: &RequestContext) -> Result<Option<i64>, Status> {
    match context.query.non_empty("resourceVersion") {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(version) if version >= 0 => Ok(Some(version)),
            _ => {
                let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                let error = FieldError::invalid("resourceVersion", text, why);
                Err(Status::invalid("", "", "", &[error]))
            }
        },
    }
}

/// The options of a list.
///
/// # Errors
/// 400 and 422 for options that make no sense, alone or together.
pub(crate) fn list(
    context: &RequestContext,
    resource: &Resource,
    namespace: &str,
) -> Result<ListRequest, Status> {
    let query = &context.query;
    let version = resource_version(context)?;
    let matching = query.non_empty("resourceVersionMatch");
    let refuse =
        |detail: &str| Err(invalid("ListOptions", &[FieldError::forbidden("resourceVersionMatch", detail)]));
    if query.get("sendInitialEvents").is_some() {
        let error = FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        return Err(invalid("ListOptions", &[error]));
    }
    let at = match (matching, version) {
        (Some(_), None) => {
            return refuse("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        (Some(_), Some(_)) if query.non_empty("continue").is_some() => {
            return refuse("resourceVersionMatch is forbidden when continue is provided");
        }
        (Some("Exact"), Some(0)) => {
            return refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        (Some("Exact"), Some(version)) => At::Exact(version),
        (Some("NotOlderThan"), Some(version)) => At::NotOlderThan(version),
        (Some(other), Some(_)) => {
            let supported = ["Exact", "NotOlderThan", ""];
            let error = FieldError::not_supported("resourceVersionMatch", other, &supported);
            return Err(invalid("ListOptions", &[error]));
        }
        // With a limit a version used to mean exactly that version, and still does.
        (None, Some(version)) if version > 0 && query.non_empty("limit").is_some() => At::Exact(version),
        (None, Some(version)) => At::NotOlderThan(version),
        (None, None) => At::Newest,
    };
    let limit = match query.non_empty("limit") {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(limit) => usize::try_from(limit).unwrap_or_default(),
            Err(_) => {
                return Err(Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                )));
            }
        },
    };
    let continues = query.non_empty("continue").map(Continue::decode).transpose()?;
    if continues.is_some() && version.is_some_and(|version| version > 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let selection = selection(context, resource)?;
    Ok(ListRequest { namespace: namespace.to_owned(), selection, at, limit, continues })
}

/// The options of a watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchRequest {
    /// The version after which it begins: `None` and 0 begin with what is there.
    pub version: Option<i64>,
    /// Which objects.
    pub selection: Selection,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// Whether it begins with what is there, and says where that ends.
    pub initial_events: Option<bool>,
    /// When it ends.
    pub timeout_seconds: Option<u64>,
}

/// The options of a watch.
///
/// # Errors
/// As [`list`].
pub(crate) fn watch(context: &RequestContext, resource: &Resource) -> Result<WatchRequest, Status> {
    let query = &context.query;
    let initial_events = query.non_empty("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
    let matching = query.non_empty("resourceVersionMatch");
    let refuse =
        |detail: &str| Err(invalid("ListOptions", &[FieldError::forbidden("resourceVersionMatch", detail)]));
    match (initial_events, matching) {
        (None, Some(_)) => {
            return refuse(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        (Some(_), None | Some("Exact")) => {
            return refuse("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        (Some(_), Some(other)) if other != "NotOlderThan" => {
            let error = FieldError::not_supported("resourceVersionMatch", other, &["NotOlderThan"]);
            return Err(invalid("ListOptions", &[error]));
        }
        _ => {}
    }
    // Zero is the same as nothing, as for upstream.
    let seconds = query.non_empty("timeoutSeconds").map(|text| {
        let wrong = || Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
        text.parse::<i64>().map_err(|_| wrong())
    });
    let timeout_seconds = seconds.transpose()?.and_then(|seconds| u64::try_from(seconds).ok());
    let timeout_seconds = timeout_seconds.filter(|seconds| *seconds > 0);
    Ok(WatchRequest {
        version: resource_version(context)?,
        selection: selection(context, resource)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        initial_events,
        timeout_seconds,
    })
}

/// The options of a deletion, from the body or else the query. Says also whether the body asks for a dry run.
///
/// # Errors
/// 400 and 422 for options that make no sense.
pub(crate) fn delete(context: &RequestContext, body: &Bytes) -> Result<(DeleteOptions, bool), Status> {
    let mut options = DeleteOptions::default();
    if body.iter().all(u8::is_ascii_whitespace) {
        let query = &context.query;
        if let Some(text) = query.non_empty("gracePeriodSeconds") {
            let wrong = || Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
            options.grace_period_seconds = Some(text.parse().map_err(|_| wrong())?);
        }
        options.orphan_dependents =
            query.non_empty("orphanDependents").map(|_| query.flag("orphanDependents"));
        options.propagation = propagation(query.non_empty("propagationPolicy"))?;
        check(&options)?;
        return Ok((options, false));
    }
    let value = super::decode::value(context, body)?;
    delete_value(&value)
}

/// The options of a deletion from a DeleteOptions object.
///
/// # Errors
/// 400 and 422 for options that make no sense.
pub(crate) fn delete_value(value: &Value) -> Result<(DeleteOptions, bool), Status> {
    let mut options = DeleteOptions::default();
    let kind = sampan_api::meta::kind(value);
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: it is a {kind}"
        )));
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    options.grace_period_seconds = value["gracePeriodSeconds"].as_i64();
    options.uid = text("/preconditions/uid");
    options.resource_version = text("/preconditions/resourceVersion");
    options.orphan_dependents = value["orphanDependents"].as_bool();
    options.propagation = propagation(value["propagationPolicy"].as_str())?;
    check(&options)?;
    let dry = sampan_api::meta::items(value, "dryRun");
    if let Some(other) = dry.iter().find(|word| *word != "All") {
        return Err(invalid(
            "DeleteOptions",
            &[FieldError::not_supported("dryRun", other.clone(), &["All"])],
        ));
    }
    Ok((options, !dry.is_empty()))
}

fn propagation(word: Option<&str>) -> Result<Option<Propagation>, Status> {
    Ok(match word {
        None | Some("") => None,
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, &supported);
            return Err(invalid("DeleteOptions", &[error]));
        }
    })
}

fn check(options: &DeleteOptions) -> Result<(), Status> {
    if options.propagation.is_some() && options.orphan_dependents.is_some() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        return Err(invalid(
            "DeleteOptions",
            &[FieldError::invalid("propagationPolicy", Value::Null, detail)],
        ));
    }
    Ok(())
}

//! What a body says it is, against what the path says: upstream's answers, which come from how its decoder works (it
//! decodes any kind that it knows, and then fails to convert it), and which people look up by their words.

use sampan_api::{Resource, Status, meta, scheme};
use serde_json::Value;

use crate::negotiate::Media;

/// Where upstream's decoder keeps its kinds, as its texts say it.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// The beginning of a body that answers show.
const SHOWN: usize = 30;

/// The two fields that say what an object is.
#[derive(serde::Deserialize)]
pub(super) struct TypeMeta {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "apiVersion")]
    api_version: String,
}

impl TypeMeta {
    /// Of a body; `None` when it is no object, which decoding it will tell better.
    pub(super) fn read(media: Media, body: &[u8]) -> Option<Self> {
        match media {
            Media::Json => serde_json::from_slice(body).ok(),
            Media::Yaml => super::yaml_value(body).ok().map(|value| Self::of(&value)),
        }
    }

    pub(super) fn of(object: &Value) -> Self {
        Self { kind: meta::kind(object).to_owned(), api_version: meta::api_version(object).to_owned() }
    }

    /// 400 unless the object is one of the resource; what it does not say, the path decides.
    pub(super) fn expect(&self, resource: &Resource) -> Result<(), Status> {
        let expected = resource.api_version();
        let or = |own: &str, default: &str| if own.is_empty() { default } else { own }.to_owned();
        let (kind, api_version) = (or(&self.kind, resource.kind), or(&self.api_version, &expected));
        if kind == resource.kind && api_version == expected {
            return Ok(());
        }
        let (_, version) = scheme::split_api_version(&api_version);
        let item = kind.strip_suffix("List").unwrap_or(&kind);
        let known = scheme::find_api_version(&api_version, &kind).is_some()
            || scheme::find_api_version(&api_version, item).is_some_and(Resource::is_stored);
        let why = if !known {
            format!("no kind {kind:?} is registered for version {api_version:?} in scheme {SCHEME:?}")
        } else if kind == resource.kind && same_storage(resource, &api_version) {
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({expected})"
            )));
        } else {
            format!(
                "converting ({version}.{kind}) to ({}.{}): unknown conversion",
                go_package(resource.group),
                resource.kind
            )
        };
        let as_what = resource.kind;
        Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {as_what}: {why}"
        )))
    }
}

/// Whether the kind in that version is only another form of the resource.
fn same_storage(resource: &Resource, api_version: &str) -> bool {
    scheme::find_api_version(api_version, resource.kind)
        .is_some_and(|other| other.storage() == resource.storage())
}

/// The Go package of a group's internal types.
fn go_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    }
}

/// 400 for what is no object at all.
pub(super) fn unrecognized(resource: &Resource, why: &str, body: &[u8]) -> Status {
    let kind = resource.kind;
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// The beginning of a body: as text when it looks like JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SHOWN)];
    let dots = if body.len() > SHOWN { " ..." } else { "" };
    match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{dots}")
        }
    }
}

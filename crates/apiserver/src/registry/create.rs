//! Creating objects: system fields, generated names, admission, validation, and the write that fails when the name is taken.

use jiff::Timestamp;
use rand::Rng;
use sampan_api::{Status, meta};
use serde_json::{Value, json};

use super::{Scope, allocation, certificates, rules};
use crate::admission::{Attributes, Operation};

/// How often another name is tried when a generated one is taken (upstream: 8).
const NAME_ATTEMPTS: usize = 8;
/// What generated names are made of: no vowels, so that no words come out, and nothing easily misread.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How long the given part of a generated name may be.
const NAME_BASE: usize = 58;

/// Creates an object, which is in the client's version with defaults applied; answers it as stored, in that version.
///
/// # Errors
/// Whatever admission, validation or the store object to.
pub async fn create(scope: &Scope<'_>, object: Value) -> Result<Value, Status> {
    let resource = scope.storage();
    let mut object = scope.to_storage(object);
    if !meta::resource_version(&object).is_empty() {
        return Err(Status {
            message: "resourceVersion should not be set on objects to be created".into(),
            ..Status::default()
        });
    }
    let mut attributes = Attributes::new(scope, Operation::Create, meta::name(&object).to_owned());
    attributes.object = object;
    scope.server.admission.admit(&mut attributes).await?;
    object = std::mem::take(&mut attributes.object);

    let generated = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
    fill_system_fields(&mut object);
    if !resource.namespaced {
        meta::set_metadata(&mut object, "namespace", "");
    }
    rules::prepare_for_create(resource, &mut object);
    if certificates::is_request(scope) {
        certificates::on_create(scope, &mut object)?;
    }
    rules::check_escalation(scope, &object, None).await?;
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    for _ in 0..attempts {
        if generated {
            let name = generate(meta::generate_name(&object));
            meta::set_metadata(&mut object, "name", &name);
        }
        rules::validate_create(scope, &object)?;
        let allocation = allocation::on_create(scope, &mut object).await?;
        attributes.object = object;
        scope.server.admission.validate(&attributes).await?;
        object = std::mem::take(&mut attributes.object);
        let written = write(scope, &mut object).await?;
        drop(allocation);
        if written {
            rules::warn_create(scope, &object);
            return Ok(scope.from_storage(object));
        }
    }
    let (group, plural, name) = (scope.resource.group, scope.resource.plural, meta::name(&object));
    Err(if generated {
        Status::generate_name_conflict(group, plural, name, 1)
    } else {
        Status::already_exists(group, plural, name)
    })
}

/// Writes the object unless its name is taken, and notes its resource version.
async fn write(scope: &Scope<'_>, object: &mut Value) -> Result<bool, Status> {
    let registry = &scope.server.registry;
    let (namespace, name) = (meta::namespace(object).to_owned(), meta::name(object).to_owned());
    if scope.dry_run {
        return Ok(registry.get(scope.storage(), &namespace, &name).await?.is_none());
    }
    let Some(revision) = registry.put(scope.storage(), &namespace, &name, object, 0).await? else {
        return Ok(false);
    };
    meta::set_resource_version(object, &revision.to_string());
    Ok(true)
}

fn fill_system_fields(object: &mut Value) {
    let now = meta::format_time(Timestamp::now());
    let metadata = meta::metadata_mut(object);
    for field in
        ["selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), json!(new_uid()));
    metadata.insert("creationTimestamp".into(), json!(now));
}

/// A random uid (RFC 9562, version 4).
pub(crate) fn new_uid() -> String {
    let random: u128 = rand::rng().random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A name that begins with `base`: five random characters follow.
pub(crate) fn generate(base: &str) -> String {
    let mut end = base.len().min(NAME_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix())
}

/// Five random characters for names.
pub(crate) fn random_suffix() -> String {
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(NAME_ALPHABET[rng.random_range(0..NAME_ALPHABET.len())])).collect()
}

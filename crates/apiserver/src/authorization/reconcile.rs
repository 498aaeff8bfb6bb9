//! Brings the default roles and bindings into the store: creates what is missing and adds rules and subjects that
//! an older version did not have; what an administrator added stays.
//!
//! An object whose annotation `rbac.authorization.kubernetes.io/autoupdate` is not `true` is left alone, and so is
//! anything of the same name that is not ours. All writes of a start are one transaction, hence one fsync.

use std::collections::HashMap;

use sampan_api::scheme;
use sampan_store::{Compare, KeyRange, Op, RangeRequest, Revision, Store, Txn};
use serde::Deserialize as _;
use serde_json::Value;

use super::{PolicyRule, aggregation, defaults};
use crate::Error;
use crate::registry::{codec, key};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Another server on the same store may write at the same time.
const ATTEMPTS: usize = 5;

/// Writes what is missing.
pub(super) async fn run(store: &dyn Store) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let txn = plan(store).await?;
        if txn.then.is_empty() {
            return Ok(());
        }
        let written = store.txn(txn).await.map_err(|source| failed("write the default roles", source))?;
        if written.succeeded {
            return Ok(());
        }
    }
    Err(Error::Bootstrap {
        subject: "default roles".into(),
        reason: "others keep changing them at the same time".into(),
    })
}

fn failed(operation: &'static str, source: sampan_store::Error) -> Error {
    Error::Store { operation, source }
}

async fn plan(store: &dyn Store) -> Result<Txn, Error> {
    let mut existing: HashMap<String, (Value, Revision)> = HashMap::new();
    for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let range = KeyRange::prefix(format!("{}{GROUP}/{plural}/", key::ROOT));
        let request = RangeRequest { range, at: None, limit: 0, count_only: false };
        let found = store.range(request).await.map_err(|source| failed("read the roles", source))?;
        for kv in found.kvs {
            let object = serde_json::from_slice(&kv.value).unwrap_or_default();
            existing.insert(String::from_utf8_lossy(&kv.key).into_owned(), (object, kv.mod_revision));
        }
    }
    let mut txn = Txn::default();
    let mut all = defaults::all();
    aggregate(&mut all);
    for mut default in all {
        let Some(resource) = scheme::find(GROUP, "v1", default.resource) else {
            return Err(Error::Bootstrap { subject: default.name, reason: "its kind is not served".into() });
        };
        let key = key::key(resource, default.namespace, &default.name);
        let revision = match existing.get(&key) {
            None => {
                default.object["metadata"]["uid"] = new_uid().into();
                default.object["metadata"]["creationTimestamp"] = now().into();
                Revision(0)
            }
            Some((object, revision)) => match merged(object, &default.object) {
                Some(object) => {
                    default.object = object;
                    *revision
                }
                None => continue,
            },
        };
        let key = bytes::Bytes::from(key);
        txn.when.push(Compare::ModRevision(key.clone(), revision));
        txn.then.push(Op::Put { key, value: codec::encode(resource, &default.object), lease: 0 });
    }
    Ok(txn)
}

/// Fills in the rules of the roles that aggregate, so that a fresh store is written once.
fn aggregate(all: &mut [defaults::DefaultObject]) {
    use super::rbac::Rbac;
    let mut rbac = Rbac::default();
    for default in all.iter() {
        rbac.apply(default.resource, default.namespace, &default.name, Some(&default.object));
    }
    // view -> edit -> admin: as many rounds as roles stand above one another.
    for _ in 0..4 {
        for (name, rules) in aggregation::outdated(rbac.cluster_roles()) {
            let role = all.iter_mut().find(|d| d.resource == "clusterroles" && d.name == name);
            if let Some(role) = role {
                role.object["rules"] = serde_json::to_value(rules).unwrap_or_default();
                let object = role.object.clone();
                rbac.apply("clusterroles", "", &name, Some(&object));
            }
        }
    }
}

/// The object with what it lacks; `None` when it lacks nothing or must not be touched.
fn merged(object: &Value, default: &Value) -> Option<Value> {
    let annotation = object["metadata"]["annotations"][AUTO_UPDATE].as_str();
    if annotation != Some("true") {
        return None;
    }
    let mut out = object.clone();
    for (key, value) in default["metadata"]["labels"].as_object().into_iter().flatten() {
        if out["metadata"]["labels"][key].is_null() {
            out["metadata"]["labels"][key] = value.clone();
        }
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    // The rules of a role that aggregates follow from others.
    if default["aggregationRule"].is_null() {
        let have: Vec<PolicyRule> =
            list(&object["rules"]).iter().filter_map(|rule| PolicyRule::deserialize(rule).ok()).collect();
        for rule in list(&default["rules"]) {
            let Ok(parsed) = PolicyRule::deserialize(&rule) else { continue };
            let covered = parsed.break_down().iter().all(|one| have.iter().any(|have| have.covers(one)));
            if !covered {
                push(&mut out["rules"], rule);
            }
        }
    }
    for subject in list(&default["subjects"]) {
        if !list(&object["subjects"]).contains(&subject) {
            push(&mut out["subjects"], subject);
        }
    }
    (out != *object).then_some(out)
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// A random (version 4) UUID.
fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

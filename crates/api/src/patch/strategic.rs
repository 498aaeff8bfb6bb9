//! Strategic merge patch: like a merge patch, but lists whose items have a key are merged item by item.
//!
//! Directives: `$patch: replace|delete|merge` in maps and list items, `$retainKeys` in maps, and beside a list `x` in
//! its map `$deleteFromPrimitiveList/x` and `$setElementOrder/x`. The keys come from the schema.

use serde_json::{Map, Value};

use super::PatchError;
use crate::{
    schema::{Field, Shape, Type, type_of},
    scheme::Resource,
};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object of the resource. A kind without schema is patched as by RFC 7386.
pub fn strategic_merge_patch(resource: &Resource, doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("Invalid JSON document".into()));
    };
    let mut out = doc.as_object().cloned().unwrap_or_default();
    merge_map(&mut out, patch, type_of(resource))?;
    Ok(Value::Object(out))
}

fn malformed<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(text.into()))
}

fn bad_directive<T>(value: &Value, map: &Map<String, Value>) -> Result<T, PatchError> {
    malformed(format!(
        "Unknown patch type: {} found in {}",
        value.as_str().unwrap_or_default(),
        Value::Object(map.clone())
    ))
}

fn merge_map(
    doc: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    kind: Option<Type>,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        match directive.as_str() {
            Some("replace") => {
                *doc = without_directives(patch);
                return Ok(());
            }
            Some("delete") => {
                doc.clear();
                return Ok(());
            }
            Some("merge") => {}
            _ => return bad_directive(directive, patch),
        }
    }
    if let Some(keep) = patch.get(RETAIN) {
        retain_keys(doc, patch, keep)?;
    }
    for (name, value) in patch {
        if name == PATCH || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVE) {
            delete_primitives(doc, list, value)?;
            continue;
        }
        if value.is_null() {
            doc.remove(name);
            continue;
        }
        let field = kind.and_then(|k| k.field(name));
        match value {
            Value::Object(inner) => {
                let inner_kind = field.filter(|f| f.shape() == Shape::One).and_then(Field::object_type);
                let target = doc.entry(name.clone()).or_insert(Value::Null);
                merge_map(crate::meta::object_mut(target), inner, inner_kind)?;
            }
            Value::Array(items) => {
                let merged = merge_list(doc.get(name), items, field, name)?;
                doc.insert(name.clone(), Value::Array(merged));
            }
            scalar => {
                doc.insert(name.clone(), scalar.clone());
            }
        }
    }
    for (name, order) in patch {
        let Some(list) = name.strip_prefix(ORDER) else { continue };
        let Some(order) = order.as_array() else { return malformed(format!("{name} must be a list")) };
        let key = kind.and_then(|k| k.field(list)).and_then(Field::merge_key);
        if let Some(Value::Array(items)) = doc.get_mut(list) {
            sort_by_order(items, order, key);
        }
    }
    Ok(())
}

/// A new map, map by map, without any directive (what is inserted whole).
fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in patch {
        let directive =
            name == PATCH || name == RETAIN || name.starts_with(ORDER) || name.starts_with(DELETE_PRIMITIVE);
        if directive || value.is_null() {
            continue;
        }
        out.insert(name.clone(), strip(value));
    }
    out
}

fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .filter(|i| i.get(PATCH).and_then(Value::as_str) != Some("delete"))
                .map(strip)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn retain_keys(
    doc: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keep: &Value,
) -> Result<(), PatchError> {
    let Some(keep) = keep.as_array() else { return malformed("$retainKeys must be a list of keys") };
    let keeps = |name: &str| keep.iter().any(|k| k.as_str() == Some(name));
    for name in patch.keys().filter(|n| !n.starts_with('$')) {
        if !keeps(name) && !patch[name].is_null() {
            return malformed(format!(
                "the keys in $retainKeys {keep:?} are not a superset of the patch's: {name}"
            ));
        }
    }
    doc.retain(|name, _| keeps(name));
    Ok(())
}

fn delete_primitives(doc: &mut Map<String, Value>, list: &str, values: &Value) -> Result<(), PatchError> {
    let Some(values) = values.as_array() else {
        return malformed(format!("{DELETE_PRIMITIVE}{list} must be a list"));
    };
    if let Some(Value::Array(items)) = doc.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_list(
    old: Option<&Value>,
    patch: &[Value],
    field: Option<Field>,
    name: &str,
) -> Result<Vec<Value>, PatchError> {
    let Some(field) = field.filter(|f| f.merges()) else {
        return Ok(patch.iter().filter(|i| !is_directive_only(i)).map(strip).collect());
    };
    let mut items = old.and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(key) = field.merge_key() else {
        for value in patch {
            if !items.contains(value) {
                items.push(value.clone());
            }
        }
        return Ok(items);
    };
    if patch.iter().any(|i| i.get(PATCH).and_then(Value::as_str) == Some("replace") && is_directive_only(i)) {
        return Ok(patch.iter().filter(|i| !is_directive_only(i)).map(strip).collect());
    }
    for item in patch {
        let Value::Object(item) = item else {
            return malformed(format!("list {name} holds maps, but the patch has another value in it"));
        };
        let Some(id) = item.get(key) else {
            let shown = Value::Object(item.clone());
            return malformed(format!("map: {shown} does not contain declared merge key: {key}"));
        };
        let found = items.iter().position(|i| i.get(key) == Some(id));
        match item.get(PATCH).and_then(Value::as_str) {
            Some("delete") => items.retain(|i| i.get(key) != Some(id)),
            Some("replace") => {
                let whole = Value::Object(without_directives(item));
                match found {
                    Some(at) => items[at] = whole,
                    None => items.push(whole),
                }
            }
            Some("merge") | None => match found {
                Some(at) => merge_map(crate::meta::object_mut(&mut items[at]), item, field.object_type())?,
                None => {
                    let mut fresh = Map::new();
                    merge_map(&mut fresh, item, field.object_type())?;
                    items.push(Value::Object(fresh));
                }
            },
            Some(_) => return bad_directive(&item[PATCH], item),
        }
    }
    Ok(items)
}

fn is_directive_only(item: &Value) -> bool {
    item.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(PATCH))
}

/// Puts items into the order asked for; items that only the server has keep their place relative to those before them.
fn sort_by_order(items: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let id = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or_default(),
        None => item.clone(),
    };
    let wanted: Vec<Value> = order.iter().map(id).collect();
    let place = |item: &Value| wanted.iter().position(|w| *w == id(item));
    let all = std::mem::take(items);
    let mut listed: Vec<(usize, Value)> = Vec::new();
    // Server-only items, each after how many listed ones it stood.
    let mut others: Vec<(usize, Value)> = Vec::new();
    for item in all {
        match place(&item) {
            Some(at) => listed.push((at, item)),
            None => others.push((listed.len(), item)),
        }
    }
    listed.sort_by_key(|(at, _)| *at);
    let mut others = others.into_iter().peekable();
    for (count, (_, item)) in listed.into_iter().enumerate() {
        while others.peek().is_some_and(|(after, _)| *after <= count) {
            items.extend(others.next().map(|(_, item)| item));
        }
        items.push(item);
    }
    items.extend(others.map(|(_, item)| item));
}

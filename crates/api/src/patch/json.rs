//! RFC 6902 with upstream's errors and limits: all operations or none, at most 10 000.

use serde_json::Value;

use super::PatchError;

const MAX_OPERATIONS: usize = 10_000;
/// `copy` can double an object with every step: bound what all of them may add.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a list of operations, all or none.
pub fn json_patch(doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = patch.as_array().ok_or_else(|| {
        PatchError::Malformed(
            "error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch".into(),
        )
    })?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut out = doc.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut out, operation, &mut copied)?;
    }
    Ok(out)
}

fn refuse<T>(text: String) -> Result<T, PatchError> {
    Err(PatchError::Unprocessable(text))
}

fn member<'a>(operation: &'a Value, name: &str) -> Result<&'a str, PatchError> {
    let missing = || PatchError::Malformed(format!("error decoding patch: operation has no string {name:?}"));
    operation.get(name).and_then(Value::as_str).ok_or_else(missing)
}

fn apply(doc: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let (op, path) = (member(operation, "op")?, member(operation, "path")?);
    if !path.is_empty() && !path.starts_with('/') {
        return refuse(format!(
            "{op} operation does not apply: doc is missing path: {path:?}: missing value"
        ));
    }
    let value = operation.get("value").cloned().unwrap_or_default();
    match op {
        "add" => insert(doc, op, path, value),
        "remove" => take(doc, op, path).map(drop),
        "replace" => {
            let missing =
                format!("replace operation does not apply: doc is missing key: {path}: missing value");
            match doc.pointer_mut(path) {
                Some(at) => {
                    *at = value;
                    Ok(())
                }
                None => refuse(missing),
            }
        }
        "move" => {
            let value = take(doc, op, member(operation, "from")?)?;
            insert(doc, op, path, value)
        }
        "copy" => {
            let from = member(operation, "from")?;
            let Some(value) = doc.pointer(from).cloned() else {
                return refuse(format!("error in copy for from: {from:?}: missing value"));
            };
            *copied += value.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return refuse(format!(
                    "unable to copy: accumulated size {copied} exceeds limit {MAX_COPIED_BYTES}"
                ));
            }
            insert(doc, op, path, value)
        }
        "test" => match doc.pointer(path) {
            Some(have) if same(have, &value) => Ok(()),
            None if value.is_null() => Ok(()),
            _ => refuse(format!("testing value {path} failed: test failed")),
        },
        other => Err(PatchError::Malformed(format!("Unexpected kind: {other}"))),
    }
}

/// Equality in which 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The container and the last step of a path.
fn parent<'a>(doc: &'a mut Value, op: &str, path: &str) -> Result<(&'a mut Value, String), PatchError> {
    let (before, last) = path.rsplit_once('/').unwrap_or(("", ""));
    let key = last.replace("~1", "/").replace("~0", "~");
    match doc.pointer_mut(before) {
        Some(container) if container.is_object() || container.is_array() => Ok((container, key)),
        _ => refuse(format!("{op} operation does not apply: doc is missing path: {path:?}: missing value")),
    }
}

fn insert(doc: &mut Value, op: &str, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *doc = value;
        return Ok(());
    }
    match parent(doc, op, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
            Ok(())
        }
        (Value::Array(items), key) if key == "-" => {
            items.push(value);
            Ok(())
        }
        (Value::Array(items), key) => match index(&key, items.len()) {
            Some(at) if at <= items.len() => {
                items.insert(at, value);
                Ok(())
            }
            _ => refuse(format!(
                "error in {op} for path: '{path}': Unable to access invalid index: {key}: invalid index referenced"
            )),
        },
        _ => refuse(format!("{op} operation does not apply: doc is missing path: {path:?}: missing value")),
    }
}

fn take(doc: &mut Value, op: &str, path: &str) -> Result<Value, PatchError> {
    let (container, key) = parent(doc, op, path)?;
    let taken = match container {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            index(&key, items.len()).filter(|at| *at < items.len()).map(|at| items.remove(at))
        }
        _ => None,
    };
    match taken {
        Some(value) => Ok(value),
        None => refuse(format!(
            "error in {op} for path: '{path}': unable to remove nonexistent key: {key}: missing value"
        )),
    }
}

/// An array index; negative ones count from the end, as upstream's library allows.
fn index(key: &str, len: usize) -> Option<usize> {
    let n: i64 = key.parse().ok()?;
    if n < 0 { len.checked_sub(n.unsigned_abs() as usize) } else { usize::try_from(n).ok() }
}

//! Taints and tolerations: what the scheduler and the kubelet need of them.

use serde_json::Value;

use crate::meta::str_of;

/// Whether a toleration covers a taint. Empty key with `Exists` covers every key, empty effect every effect.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let effect = str_of(toleration, "effect");
    if !effect.is_empty() && effect != str_of(taint, "effect") {
        return false;
    }
    let key = str_of(toleration, "key");
    if !key.is_empty() && key != str_of(taint, "key") {
        return false;
    }
    let (want, have) = (str_of(toleration, "value"), str_of(taint, "value"));
    let numbers = || Some((want.parse::<i64>().ok()?, have.parse::<i64>().ok()?));
    match str_of(toleration, "operator") {
        "" | "Equal" => want == have,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(want, have)| have < want),
        "Gt" => numbers().is_some_and(|(want, have)| have > want),
        _ => false,
    }
}

/// Whether one of the tolerations covers the taint.
pub fn tolerated(tolerations: &[Value], taint: &Value) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

/// The first taint with one of the effects that no toleration covers.
pub fn first_untolerated<'a>(
    taints: &'a [Value],
    tolerations: &[Value],
    effects: &[&str],
) -> Option<&'a Value> {
    taints.iter().find(|t| effects.contains(&str_of(t, "effect")) && !tolerated(tolerations, t))
}

/// Whether toleration `broad` covers everything that `narrow` covers (RTC-12: such narrow ones are dropped).
pub fn covers(broad: &Value, narrow: &Value) -> bool {
    let same = |field| str_of(broad, field) == str_of(narrow, field);
    let (key, effect) = (str_of(broad, "key"), str_of(broad, "effect"));
    let exists = str_of(broad, "operator") == "Exists";
    if !key.is_empty() && !same("key") || key.is_empty() && !exists {
        return false;
    }
    if !effect.is_empty() && !same("effect") {
        return false;
    }
    if effect == "NoExecute" {
        let seconds = |t: &Value| t.get("tolerationSeconds").and_then(Value::as_i64);
        match (seconds(broad), seconds(narrow)) {
            (None, _) => {}
            (Some(_), None) => return false,
            (Some(b), Some(n)) if b < n => return false,
            _ => {}
        }
    }
    let equal = |t: &Value| matches!(str_of(t, "operator"), "" | "Equal");
    exists || (equal(broad) && equal(narrow) && same("value"))
}

/// A taint as messages show it: `{key: value}`.
pub fn describe(taint: &Value) -> String {
    format!("{{{}: {}}}", str_of(taint, "key"), str_of(taint, "value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        assert!(tolerates(&json!({"operator": "Exists"}), &taint));
        assert!(tolerates(&json!({"key": "k", "value": "v"}), &taint));
        assert!(!tolerates(&json!({"key": "k", "value": "w"}), &taint));
        assert!(!tolerates(&json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), &taint));
    }

    #[test]
    fn rtc_12_broader_tolerations_cover_narrower_ones() {
        let broad = json!({"key": "k", "operator": "Exists"});
        assert!(covers(
            &broad,
            &json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"})
        ));
        assert!(!covers(&json!({"key": "k", "value": "v"}), &broad));
    }
}

//! Checks a configuration against the table of its fields: types, ranges, and who is not supported.

use serde_json::{Map, Value};

use super::ConfigurationError;
use super::fields::{Field, Kind, Support};
use crate::eviction::{Signal, parse_amount};
use crate::{go_duration, quantities};

type Checked = Result<(), ConfigurationError>;

/// Checks the fields of an object; `path` is where it is, empty for the whole.
pub(super) fn object(value: &Value, fields: &[Field], path: &str, warnings: &mut Vec<String>) -> Checked {
    for (name, value) in members(value, path)? {
        let path = join(path, name);
        let Some((_, kind, support)) = fields.iter().find(|(known, ..)| known == name) else {
            return Err(ConfigurationError::field(path, "unknown field"));
        };
        // As everywhere in Kubernetes: null is not set.
        if value.is_null() {
            continue;
        }
        field(value, *kind, &path, warnings)?;
        match support {
            Support::Yes => {}
            Support::Only(own) if own.is(value) => {}
            Support::Only(_) | Support::No => {
                warnings
                    .push(format!("the kubelet configuration's {path} is not supported and has no effect"));
            }
        }
    }
    Ok(())
}

fn field(value: &Value, kind: Kind, path: &str, warnings: &mut Vec<String>) -> Checked {
    let wrong = |expected: &str| Err(ConfigurationError::field(path, format!("{value} is not {expected}")));
    match kind {
        Kind::Any => Ok(()),
        Kind::Bool if value.is_boolean() => Ok(()),
        Kind::Bool => wrong("true or false"),
        Kind::Number if value.is_number() => Ok(()),
        Kind::Number => wrong("a number"),
        Kind::Int(least, most) => match value.as_i64() {
            Some(number) if (least..=most).contains(&number) => Ok(()),
            Some(_) => wrong(&format!("between {least} and {most}")),
            None => wrong("a whole number"),
        },
        Kind::Text if value.is_string() => Ok(()),
        Kind::Text => wrong("a text"),
        Kind::OneOf(known) => match value.as_str() {
            Some(text) if known.contains(&text) => Ok(()),
            _ => wrong(&format!("one of {}", known.join(", "))),
        },
        Kind::Duration => match value.as_str().and_then(go_duration::parse) {
            Some(_) => Ok(()),
            None => wrong("a duration such as \"10s\" or \"1m30s\""),
        },
        Kind::Quantity => match value.as_str().and_then(quantities::value) {
            Some(_) => Ok(()),
            None => wrong("a quantity such as \"10Mi\""),
        },
        Kind::Texts => list(value, path, |value| value.is_string().then_some(()), "a text"),
        Kind::Ips => list(
            value,
            path,
            |value| value.as_str()?.parse::<std::net::IpAddr>().ok().map(drop),
            "an IP address",
        ),
        Kind::Map => each(value, path, |_, value| value.is_string().then_some(()), "a text"),
        Kind::Gates => each(value, path, |_, value| value.is_boolean().then_some(()), "true or false"),
        Kind::Resources => each(
            value,
            path,
            |_, value| quantities::value(value.as_str()?).map(drop),
            "a quantity such as \"100m\" or \"1Gi\"",
        ),
        Kind::Thresholds => {
            signals(value, path)?;
            each(
                value,
                path,
                |_, value| parse_amount(value.as_str()?).map(drop),
                "a quantity or a percentage such as \"10%\"",
            )
        }
        Kind::SignalDurations => {
            signals(value, path)?;
            each(
                value,
                path,
                |_, value| go_duration::parse(value.as_str()?).map(drop),
                "a duration such as \"1m30s\"",
            )
        }
        Kind::Object(fields) => object(value, fields, path, warnings),
        Kind::List(fields) => {
            let Some(items) = value.as_array() else { return wrong("a list") };
            for (index, item) in items.iter().enumerate() {
                object(item, fields, &format!("{path}[{index}]"), warnings)?;
            }
            Ok(())
        }
    }
}

fn signals(value: &Value, path: &str) -> Checked {
    for (name, _) in members(value, path)? {
        if Signal::named(name).is_none() {
            let known = Signal::ALL.map(Signal::as_str).join(", ");
            return Err(ConfigurationError::field(
                join(path, name),
                format!("unknown signal; there are {known}"),
            ));
        }
    }
    Ok(())
}

fn list(value: &Value, path: &str, check: impl Fn(&Value) -> Option<()>, expected: &str) -> Checked {
    let Some(items) = value.as_array() else {
        return Err(ConfigurationError::field(path, format!("{value} is not a list")));
    };
    for (index, item) in items.iter().enumerate() {
        check(item).ok_or_else(|| {
            ConfigurationError::field(format!("{path}[{index}]"), format!("{item} is not {expected}"))
        })?;
    }
    Ok(())
}

fn each(value: &Value, path: &str, check: impl Fn(&str, &Value) -> Option<()>, expected: &str) -> Checked {
    for (name, item) in members(value, path)? {
        check(name, item).ok_or_else(|| {
            ConfigurationError::field(join(path, name), format!("{item} is not {expected}"))
        })?;
    }
    Ok(())
}

fn members<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, ConfigurationError> {
    let path = if path.is_empty() { "the document" } else { path };
    value.as_object().ok_or_else(|| ConfigurationError::field(path, format!("{value} is not an object")))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

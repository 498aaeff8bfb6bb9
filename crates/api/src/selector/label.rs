//! Label selectors: `a=b,c!=d,e in (f,g),!h,i` and the `LabelSelector` of objects.

use serde_json::{Map, Value};

use super::Error;
use crate::{field_error::go_quote, meta, names};

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    Gt,
    /// The label is a whole number below the value.
    Lt,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// The values, as many as the operator wants.
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key and values.
    pub(super) fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, Error> {
        let invalid = |path: &str, value: &str, messages: Vec<String>| {
            Error::Label(format!("{path}: Invalid value: {}: {}", go_quote(value), messages.join("; ")))
        };
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            return Err(invalid("<nil>", key, messages));
        }
        if matches!(operator, Operator::Gt | Operator::Lt) && values.iter().any(|v| v.parse::<i64>().is_err())
        {
            let value = values.first().map(String::as_str).unwrap_or_default();
            let message = "for 'Gt', 'Lt' operators, the value must be an integer".to_owned();
            return Err(invalid("values[0]", value, vec![message]));
        }
        for (i, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                return Err(invalid(&format!("values[{i}][{key}]"), value, messages));
            }
        }
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label's value (None = absent) satisfies this.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            Operator::NotIn => value.is_none_or(|v| self.values.iter().all(|w| w != v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt | Operator::Lt => {
                let (Some(have), Some(bound)) =
                    (value.and_then(number), self.values.first().and_then(|v| number(v)))
                else {
                    return false;
                };
                if self.operator == Operator::Gt { have > bound } else { have < bound }
            }
        }
    }
}

/// All requirements must hold; none = everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
    /// True for the selector that matches nothing (an absent `LabelSelector` object).
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: vec![], nothing: true }
    }

    /// Parses the query form. Errors carry upstream's text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        super::parse::parse(text).map(|requirements| Self { requirements, nothing: false })
    }

    /// Equality on every entry of a map (`spec.selector` of Services and ReplicationControllers).
    pub fn from_map(map: &Map<String, Value>) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self { requirements: map.iter().map(requirement).collect(), nothing: false }
    }

    /// From a `metav1.LabelSelector` object (`matchLabels`, `matchExpressions`); `null` selects nothing, `{}` everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, Error> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let empty = Map::new();
        let mut out =
            Self::from_map(selector.get("matchLabels").and_then(Value::as_object).unwrap_or(&empty));
        for expression in meta::items(selector, "matchExpressions") {
            let operator = match meta::str_of(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(Error::Label(format!(
                        "{} is not a valid label selector operator",
                        go_quote(other)
                    )));
                }
            };
            let values = meta::items(expression, "values")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            out.requirements.push(Requirement::new(meta::str_of(expression, "key"), operator, values)?);
        }
        Ok(out)
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether a set of labels is selected.
    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        !self.nothing && self.requirements.iter().all(|r| r.matches_value(value(&r.key)))
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(meta::labels(object))
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self
            .requirements
            .iter()
            .map(|r| {
                let (key, values) = (&r.key, r.values.join(","));
                match r.operator {
                    Operator::In if r.values.len() == 1 => format!("{key}={values}"),
                    Operator::In => format!("{key} in ({values})"),
                    Operator::NotIn if r.values.len() == 1 => format!("{key}!={values}"),
                    Operator::NotIn => format!("{key} notin ({values})"),
                    Operator::Exists => key.clone(),
                    Operator::DoesNotExist => format!("!{key}"),
                    Operator::Gt => format!("{key}>{values}"),
                    Operator::Lt => format!("{key}<{values}"),
                }
            })
            .collect();
        f.write_str(&texts.join(","))
    }
}

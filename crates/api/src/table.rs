//! `meta.k8s.io/v1` Tables: what `kubectl get` shows, with upstream's columns and cell texts for every kind.

mod cells;
mod columns;
mod pod;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{meta, scheme::Resource};

/// What each row carries of its object (`includeObject` in the query).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as PartialObjectMetadata (the default).
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl std::str::FromStr for IncludeObject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(format!("unrecognized includeObject value: {other:?}")),
        }
    }
}

/// A column of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading (kubectl shows it in capitals).
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// 0, or 1 for what only `-o wide` shows.
    pub priority: u8,
}

/// The columns of a resource's table.
pub fn columns(resource: &Resource) -> &'static [Column] {
    columns::of(resource)
}

/// The column definitions as a watch sends them once and a list always.
pub fn column_definitions(resource: &Resource) -> Value {
    columns(resource)
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": describe(resource, c),
                "priority": c.priority})
        })
        .collect()
}

fn describe(resource: &Resource, column: &Column) -> String {
    match column.name {
        "Name" => "Name must be unique within a namespace.".into(),
        "Age" | "Created At" => "When the object was created.".into(),
        other => format!("{other} of the {}.", resource.kind),
    }
}

/// One row.
pub fn row(resource: &Resource, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = json!({"cells": cells::of(resource, object, now)});
    if (resource.group, resource.kind) == ("", "Pod")
        && let Some(conditions) = pod::row_conditions(object)
    {
        row["conditions"] = conditions;
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = meta::partial_object_metadata(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// A Table of these objects; the caller adds the list metadata (resource version, continue token).
pub fn table(resource: &Resource, objects: &[Value], now: Timestamp, include: IncludeObject) -> Value {
    let rows: Vec<Value> = objects.iter().map(|o| row(resource, o, now, include)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": column_definitions(resource),
        "rows": rows,
    })
}

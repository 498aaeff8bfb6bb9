//! What the scheduler keeps of a node.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use sampan_api::meta::list;
use sampan_api::resources::{self, ResourceList};
use serde_json::Value;

/// A node as the scheduler sees it. Two that are equal take the same pods: heartbeats make no difference.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) unschedulable: bool,
    pub(crate) taints: Vec<Value>,
    /// What pods may use, `pods` included.
    pub(crate) allocatable: ResourceList,
}

impl Node {
    pub(crate) fn read(object: &DynamicObject) -> Self {
        let data = &object.data;
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            unschedulable: data.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false),
            taints: list(data, "/spec/taints").to_vec(),
            allocatable: resources::parse(data.pointer("/status/allocatable")),
        }
    }
}

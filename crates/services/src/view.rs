//! What is known of Services and their endpoints.

mod service;
mod slice;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

pub(crate) use self::{
    service::{ServicePortSummary, ServiceSummary},
    slice::{EndpointSummary, SliceSummary},
};
use crate::feed;

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ServiceKey {
    fn parse(key: &str) -> Self {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All Services and slices. Its methods return the Services that have to be looked at again.
#[derive(Default)]
pub(crate) struct View {
    services: HashMap<ServiceKey, ServiceSummary>,
    /// By Service and name of the slice; slices may be there before their Service.
    slices: HashMap<ServiceKey, BTreeMap<String, SliceSummary>>,
    /// Whose each slice is.
    owners: HashMap<String, ServiceKey>,
}

impl View {
    pub(crate) fn set_service(&mut self, service: &Service) -> Option<ServiceKey> {
        let key = ServiceKey::parse(&feed::key(service));
        let summary = ServiceSummary::read(service);
        let before = self.services.insert(key.clone(), summary);
        (before.as_ref() != self.services.get(&key)).then_some(key)
    }

    pub(crate) fn remove_service(&mut self, key: &str) -> Option<ServiceKey> {
        let key = ServiceKey::parse(key);
        self.services.remove(&key).map(|_| key)
    }

    pub(crate) fn set_slice(&mut self, slice: &EndpointSlice) -> Vec<ServiceKey> {
        let name = feed::key(slice);
        let Some((owner, summary)) = SliceSummary::read(slice) else { return self.remove_slice(&name) };
        let mut dirty = Vec::new();
        if self.owners.get(&name).is_some_and(|before| *before != owner) {
            dirty = self.remove_slice(&name);
        }
        self.owners.insert(name.clone(), owner.clone());
        let before = self.slices.entry(owner.clone()).or_default().insert(name, summary.clone());
        if before.as_ref() != Some(&summary) {
            dirty.push(owner);
        }
        dirty
    }

    pub(crate) fn remove_slice(&mut self, name: &str) -> Vec<ServiceKey> {
        let Some(owner) = self.owners.remove(name) else { return Vec::new() };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        vec![owner]
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&ServiceSummary> {
        self.services.get(key)
    }

    pub(crate) fn slices(&self, key: &ServiceKey) -> Vec<&SliceSummary> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values).collect()
    }
}

//! What is kept of an EndpointSlice.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use sampan_network::Protocol;

use super::{ServiceKey, service::protocol};

/// The label that says whose a slice is.
const OWNER: &str = "kubernetes.io/service-name";

/// A slice: endpoints with the same ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SliceSummary {
    /// Name, protocol and number. A port without a number is left out.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
    pub(crate) endpoints: Vec<EndpointSummary>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointSummary {
    /// Endpoints have one address: upstream uses no more.
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    /// It answers, although it is being terminated.
    pub(crate) serves_while_terminating: bool,
    pub(crate) hostname: Option<String>,
    pub(crate) node: Option<String>,
}

impl SliceSummary {
    /// The slice and whose it is; none for one that is nobody's or not of addresses.
    pub(crate) fn read(slice: &EndpointSlice) -> Option<(ServiceKey, Self)> {
        let owner = slice.metadata.labels.as_ref()?.get(OWNER).filter(|owner| !owner.is_empty())?;
        let namespace = slice.metadata.namespace.clone()?;
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.clone().unwrap_or_default(), protocol(port.protocol.as_deref())?, number))
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            Some(EndpointSummary {
                address: endpoint.addresses.first()?.parse().ok()?,
                ready,
                serves_while_terminating: serving && terminating,
                hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
                node: endpoint.node_name.clone(),
            })
        });
        let summary = Self { ports: ports.collect(), endpoints: endpoints.collect() };
        Some((ServiceKey { namespace, name: owner.clone() }, summary))
    }
}

//! The Service `kube-dns`, under which pods find the DNS server: an ordinary Service without a selector, and an
//! EndpointSlice that names where the server listens.
//!
//! Whoever runs a DNS server of his own as pods creates a Service of that name with a selector; it is left alone.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// The Service and its slice, as the watch names them.
pub(crate) const KEY: &str = "kube-system/kube-dns";
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Where the cluster's DNS is.
#[derive(Clone, Copy, Debug)]
pub struct ClusterDns {
    /// The address of the Service.
    pub service: Ipv4Addr,
    /// Where the server listens, UDP and TCP.
    pub endpoint: SocketAddr,
}

/// Brings the Service and its slice in order, now and whenever one of them is deleted.
pub(crate) async fn keep(client: &Client, dns: &ClusterDns, gone: &Notify) {
    loop {
        let mut backoff = FIRST_BACKOFF;
        while let Err(error) = put(client, dns).await {
            tracing::warn!(%error, service = KEY, address = %dns.service, "cluster DNS has no Service; trying again");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
        gone.notified().await;
    }
}

async fn put(client: &Client, dns: &ClusterDns) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    match services.get_opt(NAME).await? {
        Some(theirs) if theirs.spec.as_ref().is_some_and(|spec| spec.selector.is_some()) => {
            tracing::info!(service = KEY, "selects pods: the built-in DNS server stays behind them");
            return Ok(());
        }
        Some(_) => {}
        None => {
            let service = from(service(dns))?;
            services.create(&PostParams::default(), &service).await?;
        }
    }
    let slice = slice(dns);
    if slices.get_opt(NAME).await?.is_none() {
        slices.create(&PostParams::default(), &from(slice)?).await?;
    } else {
        slices.patch(NAME, &PatchParams::default(), &Patch::Merge(slice)).await?;
    }
    Ok(())
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> Result<K, kube::Error> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

fn service(dns: &ClusterDns) -> Value {
    let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": 53, "targetPort": dns.endpoint.port()});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "KubeDNS"}},
        "spec": {"clusterIP": dns.service.to_string(), "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
    })
}

fn slice(dns: &ClusterDns) -> Value {
    let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": dns.endpoint.port()});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "kubernetes.io/service-name": NAME, "endpointslice.kubernetes.io/managed-by": "sampan"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [dns.endpoint.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
    })
}

//! What the runtime needs from a network, as a trait: the built-in bridge, CNI, or nothing in tests.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use sampan_cri::v1;

/// A sandbox that wants a network.
#[derive(Clone, Debug)]
pub struct NetworkRequest {
    /// The sandbox's id.
    pub id: String,
    /// Its pinned network namespace.
    pub netns: PathBuf,
    /// Who it is, for networks that care.
    pub metadata: v1::PodSandboxMetadata,
    /// Ports of the host; those with `host_port` 0 are left out already.
    pub port_mappings: Vec<v1::PortMapping>,
}

/// Connects sandboxes to the world.
#[async_trait]
pub trait SandboxNetwork: Send + Sync {
    /// Gives a sandbox its interfaces and addresses (the primary one first); undone when it fails.
    async fn setup(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, String>;

    /// Takes them away; nothing to take is no error.
    async fn teardown(&self, id: &str, netns: Option<&std::path::Path>) -> Result<(), String>;

    /// Takes away what belongs to sandboxes other than these.
    async fn reconcile(&self, living: &HashSet<String>) -> Result<(), String>;

    /// Why pods cannot get a network now, when they cannot.
    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl SandboxNetwork for sampan_network::Network {
    async fn setup(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, String> {
        let sandbox = wanted(request)?;
        let status = Self::setup(self, &sandbox).await.map_err(|error| chain(&error))?;
        Ok(status.ips)
    }

    async fn teardown(&self, id: &str, _: Option<&std::path::Path>) -> Result<(), String> {
        Self::teardown(self, id).await.map_err(|error| chain(&error))
    }

    async fn reconcile(&self, living: &HashSet<String>) -> Result<(), String> {
        Self::reconcile(self, living).await.map_err(|error| chain(&error))
    }
}

/// Networks of CNI plugins.
#[async_trait]
impl SandboxNetwork for sampan_network::Cni {
    async fn setup(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, String> {
        let sandbox = wanted(request)?;
        let pod = sampan_network::CniPod {
            namespace: request.metadata.namespace.clone(),
            name: request.metadata.name.clone(),
            uid: request.metadata.uid.clone(),
        };
        let status = Self::setup(self, &sandbox, &pod).await.map_err(|error| chain(&error))?;
        Ok(status.ips)
    }

    async fn teardown(&self, id: &str, _: Option<&std::path::Path>) -> Result<(), String> {
        Self::teardown(self, id).await.map_err(|error| chain(&error))
    }

    async fn reconcile(&self, living: &HashSet<String>) -> Result<(), String> {
        Self::reconcile(self, living).await.map_err(|error| chain(&error))
    }

    async fn ready(&self) -> Result<(), String> {
        Self::ready(self).map_err(|error| format!("Network plugin returns error: {}", chain(&error)))
    }
}

/// The request in the network's words.
fn wanted(request: &NetworkRequest) -> Result<sampan_network::SandboxNetwork, String> {
    let port_mappings = request.port_mappings.iter().map(port_mapping).collect::<Result<_, _>>()?;
    Ok(sampan_network::SandboxNetwork { id: request.id.clone(), netns: request.netns.clone(), port_mappings })
}

fn port_mapping(mapping: &v1::PortMapping) -> Result<sampan_network::PortMapping, String> {
    let protocol = match mapping.protocol() {
        v1::Protocol::Tcp => sampan_network::Protocol::Tcp,
        v1::Protocol::Udp => sampan_network::Protocol::Udp,
        v1::Protocol::Sctp => return Err("hostPort with protocol SCTP is not supported".to_owned()),
    };
    let port = |number: i32| u16::try_from(number).map_err(|_| format!("invalid port {number}"));
    let host_ip = match mapping.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => Some(text.parse().map_err(|_| format!("hostIP {text:?} is not an IPv4 address"))?),
    };
    Ok(sampan_network::PortMapping {
        protocol,
        container_port: port(mapping.container_port)?,
        host_port: port(mapping.host_port)?,
        host_ip,
    })
}

/// A network without connections: sandboxes get an empty namespace. For tests and for `hostNetwork` only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNetwork;

#[async_trait]
impl SandboxNetwork for NoNetwork {
    async fn setup(&self, _: &NetworkRequest) -> Result<Vec<IpAddr>, String> {
        Ok(Vec::new())
    }

    async fn teardown(&self, _: &str, _: Option<&std::path::Path>) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile(&self, _: &HashSet<String>) -> Result<(), String> {
        Ok(())
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

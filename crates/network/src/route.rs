//! How the host finds what is not on its bridge.
//!
//! Services: any route for their range will do, as the rules change the destination before a
//! packet leaves. Without one, a machine that has no default route says that the network is unreachable.

use std::net::Ipv4Addr;

use rtnetlink::{RouteMessageBuilder, packet_route::route::RouteMessage};

use crate::{Error, Ipv4Cidr, bridge};

const ESRCH: i32 = 3;

/// The route of a Service range.
#[derive(Clone, Debug)]
pub struct ServiceRoute {
    device: String,
    range: Ipv4Cidr,
    source: Option<Ipv4Addr>,
}

impl ServiceRoute {
    /// Over a device, with this source address: that is what endpoints see of the host.
    pub fn over(device: &str, range: Ipv4Cidr, source: Ipv4Addr) -> Self {
        // A pod cannot answer 127.0.0.1; the kernel chooses a source then.
        let source = Some(source).filter(|source| !source.is_loopback());
        Self { device: device.to_owned(), range, source }
    }

    fn message(&self, index: u32) -> RouteMessage {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.range.network(), self.range.prefix())
            .output_interface(index);
        if let Some(source) = self.source {
            route = route.pref_source(source);
        }
        route.build()
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
        let link = format!("{} over {}", self.range, self.device);
        move |source| Error::Link { operation, link, source }
    }
}

/// Adds the route, or makes the one that is there like this.
///
/// # Errors
/// When the device does not exist or the kernel refuses.
pub async fn add_service_route(route: &ServiceRoute) -> Result<(), Error> {
    bridge::with_netlink(async |links| {
        let device = bridge::index_of(&links, &route.device).await?;
        let index = device.ok_or_else(|| Error::NoLink(route.device.clone()))?;
        let added = links.route().add(route.message(index)).replace().execute().await;
        added.map_err(route.failed("adding the Services' route"))
    })
    .await
}

/// Removes the route. One that is gone is no error; it also goes with its device.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_service_route(route: &ServiceRoute) -> Result<(), Error> {
    bridge::with_netlink(async |links| {
        let Some(index) = bridge::index_of(&links, &route.device).await? else { return Ok(()) };
        match links.route().del(route.message(index)).execute().await {
            Err(error) if bridge::errno(&error) != Some(ESRCH) => {
                Err(route.failed("removing the Services' route")(error))
            }
            _ => Ok(()),
        }
    })
    .await
}

/// The route to the pods of another node, which is on a network of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// The addresses of its pods.
    pub pods: Ipv4Cidr,
    /// Its own.
    pub via: Ipv4Addr,
}

impl NodeRoute {
    fn message(&self) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.pods.network(), self.pods.prefix())
            .gateway(self.via)
            .build()
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
        let link = format!("{} via {}", self.pods, self.via);
        move |source| Error::Link { operation, link, source }
    }
}

/// Adds the route, or makes the one that is there like this.
///
/// # Errors
/// When the kernel refuses, as it does when the node is on no network of this machine.
pub async fn add_node_route(route: &NodeRoute) -> Result<(), Error> {
    bridge::with_netlink(async |links| {
        let added = links.route().add(route.message()).replace().execute().await;
        added.map_err(route.failed("adding the route"))
    })
    .await
}

/// Removes the route. One that is gone is no error.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove_node_route(route: &NodeRoute) -> Result<(), Error> {
    bridge::with_netlink(async |links| match links.route().del(route.message()).execute().await {
        Err(error) if bridge::errno(&error) != Some(ESRCH) => Err(route.failed("removing the route")(error)),
        _ => Ok(()),
    })
    .await
}

//! The API's port, bound before anything else is started: a port in use should cost nothing.

use std::{io, net::SocketAddr};

use anyhow::{Result, anyhow};
use tokio::net::TcpListener;

use crate::config::ServerConfig;

pub(super) async fn api(config: &ServerConfig) -> Result<TcpListener> {
    let address = SocketAddr::new(config.node.bind_address, config.https_listen_port);
    TcpListener::bind(address).await.map_err(|error| explain(&error, address, "--https-listen-port"))
}

/// The error with what can be done about it.
pub(crate) fn explain(error: &io::Error, address: SocketAddr, option: &str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "port {} is in use on {}: stop what uses it (`ss -ltnp sport = :{0}` shows it) or choose another with {option}",
            address.port(),
            address.ip(),
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{} is no address of this machine: choose another --bind-address", address.ip())
        }
        _ => anyhow!("listening on {address}: {error}"),
    }
}

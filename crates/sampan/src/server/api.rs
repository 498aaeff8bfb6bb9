//! The API server over its store, and the kubeconfig that leads to it.

use std::{fs, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use sampan_apiserver::{ApiServer, Pki, admission::AdmissionConfig, pki::PkiConfig};
use sampan_store::{Store, embedded::Embedded, etcd::Etcd};

use super::digests::RegistryDigests;
use crate::config::ServerConfig;

/// The API server over its store. What `address` says is in its certificate.
pub(super) async fn start(config: &ServerConfig, address: SocketAddr) -> Result<(Arc<ApiServer>, Pki)> {
    let service_cidr: sampan_apiserver::Cidr = config
        .node
        .service_cidr
        .to_string()
        .parse()
        .map_err(|error| anyhow::anyhow!("--service-cidr: {error}"))?;
    let store = store(config).await?;
    let mut ips = vec![config.node.node_ip];
    ips.extend(Some(address.ip()).filter(|ip| !ip.is_unspecified()));
    let pki = Pki::ensure(
        &config.node.data_dir.join("pki"),
        &PkiConfig {
            node_name: config.node.node_name.clone(),
            hostnames: Vec::new(),
            ips,
            service_ip: service_cidr.nth(1),
            cluster_domain: config.node.cluster_domain.clone(),
        },
    )
    .context("certificates")?;
    let server = ApiServer::start(sampan_apiserver::Config {
        store,
        pki: pki.clone(),
        service_cidr,
        node_ports: (30000, 32767),
        cluster_domain: config.node.cluster_domain.clone(),
        advertise: (config.node.node_ip, address.port()),
        token_auth_file: None,
        admission: AdmissionConfig {
            enable: config.enable_admission_plugins.clone(),
            disable: config.disable_admission_plugins.clone(),
            digests: Some(Arc::new(RegistryDigests::new(&config.node)?)),
        },
    })
    .await
    .context("starting the API server")?;
    Ok((server, pki))
}

async fn store(config: &ServerConfig) -> Result<Arc<dyn Store>> {
    Ok(match &config.datastore_endpoint {
        Some(endpoint) => Etcd::connect(endpoint, None).await.context("--datastore-endpoint")?,
        None => Embedded::open(&config.node.data_dir.join("store")).context("opening the store")?,
    })
}

/// Writes the administrator's kubeconfig, readable by root only, whole or not at all.
pub(super) fn write_kubeconfig(config: &ServerConfig, pki: &Pki, address: SocketAddr) -> Result<()> {
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let text = pki.admin_kubeconfig(&format!("https://{host}:{}", address.port()));
    let path = &config.kubeconfig;
    let writing = || format!("writing {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(writing)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut open = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(open.write(true).create_new(true), 0o600);
    let mut file = open.open(&temporary).with_context(writing)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(writing)?;
    fs::rename(&temporary, path).with_context(writing)
}

//! The kubelet of a node: which runtime it drives and what it is told.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use sampan_apiserver::CertifiedKeyPem;
use sampan_kubelet::{KubeletConfig, Serving, ServingIdentity, cri::CriRuntime};
use tokio::sync::watch;

use super::Api;
use crate::config::NodeConfig;

/// How long a runtime may take for its first answer: a socket of something else may never give one.
const CRI_PATIENCE: Duration = Duration::from_secs(10);

/// The kubelet's connection to its runtime.
pub(super) async fn cri_client(config: &NodeConfig, embedded: bool) -> Result<sampan_cri::client::Client> {
    match &config.container_runtime_endpoint {
        Some(endpoint) if !embedded => {
            let answers = async {
                let client = sampan_cri::client::connect(endpoint).await?;
                let request = sampan_cri::v1::VersionRequest { version: "v1".to_owned() };
                let version = client.runtime.clone().version(request).await?.into_inner();
                tracing::info!(
                    runtime = version.runtime_name,
                    version = version.runtime_version,
                    endpoint,
                    "CRI"
                );
                Ok(client)
            };
            match tokio::time::timeout(CRI_PATIENCE, answers).await {
                Ok(client) => client,
                Err(_) => Err(anyhow::anyhow!("nothing that speaks CRI answers within {CRI_PATIENCE:?}")),
            }
            .with_context(|| format!("--container-runtime-endpoint {endpoint}"))
        }
        _ => {
            let endpoint = format!("unix://{}", config.run_dir.join("cri.sock").display());
            Ok(sampan_cri::client::connect_lazy(&endpoint)?)
        }
    }
}

/// What the kubelet is told.
pub(super) fn config(
    config: &NodeConfig,
    api: Api,
    cri: sampan_cri::client::Client,
    cluster_dns: Option<std::net::IpAddr>,
) -> KubeletConfig {
    let mut kubelet = KubeletConfig::new(
        &config.node_name,
        api.node,
        Arc::new(CriRuntime::new(cri, config.kubelet.runtime_request_timeout())),
        config.data_dir.join("kubelet"),
        config.node_ip,
    );
    for warning in config.kubelet.warnings() {
        tracing::warn!("{warning}");
    }
    kubelet.cluster_dns.extend(cluster_dns);
    config.kubelet.apply(&mut kubelet);
    kubelet.images.image_credential_provider_config = config.image_credential_provider_config.clone();
    kubelet.images.image_credential_provider_bin_dir = config.image_credential_provider_bin_dir.clone();
    // The flat links are shared by the machine: only the server with the usual log directory makes them.
    let usual_logs = config.log_dir == Path::new("/var/log/pods");
    KubeletConfig {
        log_dir: config.log_dir.clone(),
        container_log_dir: usual_logs.then(|| "/var/log/containers".into()),
        serving: Some(Serving {
            address: SocketAddr::new(config.bind_address, config.kubelet_port),
            identity: identities(api.serving),
            client_ca_pem: api.ca_pem.into_bytes(),
        }),
        cluster_domain: config.cluster_domain.clone(),
        inhibit_shutdown: true,
        pod_cidr: Some(config.pod_cidr.to_string()),
        labels: config.node_labels.clone(),
        max_pods: config.max_pods,
        static_pod_path: config.static_pod_path.clone(),
        cgroup_root: config.cgroup_root.clone(),
        ..kubelet
    }
}

/// The same certificates in the kubelet's words.
fn identities(mut from: watch::Receiver<CertifiedKeyPem>) -> watch::Receiver<ServingIdentity> {
    let convert = |pair: &CertifiedKeyPem| ServingIdentity {
        certificate_pem: pair.certificate.clone().into_bytes(),
        private_key_pem: pair.key.clone().into_bytes(),
    };
    let (to, identities) = watch::channel(convert(&from.borrow_and_update()));
    tokio::spawn(async move {
        while from.changed().await.is_ok() {
            to.send_replace(convert(&from.borrow_and_update()));
        }
    });
    identities
}

//! UpdateRuntimeConfig: a kubelet tells its pod CIDR. Our network has its range from the server's configuration, so this is only logged.

use sampan_cri::v1;

pub(super) fn update_runtime_config(
    request: &v1::UpdateRuntimeConfigRequest,
) -> v1::UpdateRuntimeConfigResponse {
    let network = request.runtime_config.as_ref().and_then(|config| config.network_config.as_ref());
    if let Some(network) = network {
        tracing::debug!(pod_cidr = network.pod_cidr, "the kubelet's pod CIDR");
    }
    v1::UpdateRuntimeConfigResponse {}
}

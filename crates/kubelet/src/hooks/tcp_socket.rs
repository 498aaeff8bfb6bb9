//! `tcpSocket`: success is a connection (DESIGN.md, "Where the documents differ", instead of HOOK-15).

use k8s_openapi::api::core::v1::TCPSocketAction;

use super::HookTarget;
use crate::http_get;
use crate::probes::prober::resolve_port;

pub(super) async fn run(target: &HookTarget<'_>, tcp: &TCPSocketAction) -> Result<(), String> {
    let port = resolve_port(&tcp.port, target.container)?;
    let host = target.host(tcp.host.as_deref())?;
    http_get::dial(&host, port).await.map(drop)
}

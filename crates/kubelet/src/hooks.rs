//! Lifecycle hooks: postStart and preStop by exec, httpGet, tcpSocket and sleep (HOOK-01 to HOOK-15).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::context::NodeContext;
use crate::cri::go_error;
use crate::events::EventType;
use crate::http_get::{self, HttpGet};
use crate::pod_ref::{self, ContainerKind};
use crate::probes::prober::resolve_port;

/// Where a hook runs.
pub(crate) struct HookTarget<'a> {
    pub(crate) ctx: &'a NodeContext,
    pub(crate) pod: &'a Pod,
    pub(crate) kind: ContainerKind,
    pub(crate) container: &'a Container,
    pub(crate) container_id: &'a str,
    /// The pod's address; none yet is an error for HTTP and TCP handlers (HOOK-09).
    pub(crate) pod_ip: Option<&'a str>,
}

/// Runs `handler` to its end.
///
/// # Errors
/// The text for event and waiting message. What the handler printed is not in it: it may hold secrets.
pub(crate) async fn run(target: &HookTarget<'_>, handler: &LifecycleHandler) -> Result<(), String> {
    let subject =
        format!("for Container {:?} in Pod {:?}", target.container.name, pod_ref::full_name(target.pod));
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        return exec_hook(target, &command).await.map_err(|(error, message)| {
            format!(
                "Exec lifecycle hook ([{}]) {subject} failed - error: {error}, message: {message:?}",
                command.join(" ")
            )
        });
    }
    if let Some(get) = &handler.http_get {
        let path = get.path.as_deref().unwrap_or_default();
        return http_hook(target, get)
            .await
            .map_err(|error| format!("HTTP lifecycle hook ({path}) {subject} failed - error: {error}"));
    }
    if let Some(tcp) = &handler.tcp_socket {
        return tcp_hook(target, tcp).await.map_err(|error| {
            let port = match &tcp.port {
                k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port) => port.to_string(),
                k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(port) => port.clone(),
            };
            format!("TCP lifecycle hook ({port}) {subject} failed - error: {error}")
        });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(format!("Cannot run handler: invalid handler {subject}"))
}

async fn exec_hook(target: &HookTarget<'_>, command: &[String]) -> Result<(), (String, String)> {
    let cri = &target.ctx.config.cri;
    match cri.exec_sync(target.container_id, command.to_vec(), 0).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => Err((
            format!("command '{}' exited with {}: ", command.join(" "), answer.exit_code),
            String::new(),
        )),
        Err(status) => Err((go_error(&status), status.message().to_owned())),
    }
}

/// The host that a network hook talks to: its own, else the pod's address.
fn host(target: &HookTarget<'_>, own: Option<&str>) -> Result<String, String> {
    own.filter(|host| !host.is_empty()).or(target.pod_ip).map(str::to_owned).ok_or_else(|| {
        format!(
            "failed to find networking container: pod {:?} has no IP address",
            pod_ref::full_name(target.pod)
        )
    })
}

async fn http_hook(
    target: &HookTarget<'_>,
    get: &k8s_openapi::api::core::v1::HTTPGetAction,
) -> Result<(), String> {
    let port = resolve_port(&get.port, target.container)?;
    let https = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let mut request = HttpGet {
        https,
        host: host(target, get.host.as_deref())?,
        port,
        path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
        headers: http_get::headers(get.http_headers.as_ref(), "kube-lifecycle/1.36"),
    };
    // Any answer is a success, whatever its status (HOOK-08).
    match http_get::get(&request).await {
        Ok(_) => Ok(()),
        Err(error) if https && answers_plain_http(&error) => {
            request.https = false;
            request.headers.remove(http::header::AUTHORIZATION);
            http_get::get(&request).await?;
            target.ctx.recorder.record(
                pod_ref::container_reference(target.pod, target.kind, &target.container.name),
                EventType::Warning,
                "LifecycleHTTPFallback",
                format!(
                    "request to HTTPS lifecycle hook {}:{port} got HTTP response, retry with HTTP succeeded",
                    request.host
                ),
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether TLS failed because the other side does not speak it (HOOK-11).
fn answers_plain_http(error: &str) -> bool {
    error.contains("corrupt message") || error.contains("InvalidContentType")
}

async fn tcp_hook(
    target: &HookTarget<'_>,
    tcp: &k8s_openapi::api::core::v1::TCPSocketAction,
) -> Result<(), String> {
    let port = resolve_port(&tcp.port, target.container)?;
    let host = host(target, tcp.host.as_deref())?;
    match tokio::net::TcpStream::connect((host.as_str(), port)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("dial tcp {host}:{port}: connect: {}", http_get::dial_error(&error))),
    }
}

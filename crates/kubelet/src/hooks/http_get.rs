//! `httpGet`: a request from the node; any answer is a success, whatever its status (HOOK-08 to HOOK-13).

use k8s_openapi::api::core::v1::HTTPGetAction;

use super::HookTarget;
use super::output::Output;
use crate::events::EventType;
use crate::http_get::{self, HttpGet};
use crate::pod_ref;
use crate::probes::prober::resolve_port;

pub(super) async fn run(
    target: &HookTarget<'_>,
    get: &HTTPGetAction,
    output: &mut Output,
) -> Result<(), String> {
    let port = resolve_port(&get.port, target.container)?;
    let https = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let mut request = HttpGet {
        https,
        host: target.host(get.host.as_deref())?,
        port,
        path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
        headers: http_get::headers(get.http_headers.as_ref(), "kube-lifecycle/1.36"),
        whole: false,
    };
    match http_get::get(&request).await {
        Ok(answer) => {
            output.http(&answer);
            Ok(())
        }
        Err(error) if https && answers_plain_http(&error) => {
            request.https = false;
            request.headers.remove(http::header::AUTHORIZATION);
            output.http(&http_get::get(&request).await?);
            target.ctx.metrics.containers.http_fallbacks.inc();
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

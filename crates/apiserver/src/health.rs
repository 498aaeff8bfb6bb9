//! `/healthz`, `/livez`, `/readyz` and their single checks, in upstream's text; `/metrics`.

use std::sync::Arc;

use http::Request;

use crate::context::RequestContext;
use crate::respond::{self, Body, Response};
use crate::{ApiServer, reviews};

const TEXT: &str = "text/plain; charset=utf-8";

/// The checks of an endpoint, in the order in which they are shown.
fn checks(endpoint: &str) -> &'static [&'static str] {
    const ALIVE: &[&str] = &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];
    const READY: &[&str] = &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles", "shutdown"];
    if endpoint == "readyz" { READY } else { ALIVE }
}

/// Answers the health endpoints and `/metrics`.
pub async fn serve(server: Arc<ApiServer>, context: RequestContext, _request: Request<Body>) -> Response {
    let path = context.info.path.trim_matches('/').to_owned();
    let (endpoint, check) = path.split_once('/').unwrap_or((&path, ""));
    if endpoint == "metrics" {
        return if check.is_empty() { metrics(&server).await } else { respond::not_found_path() };
    }
    if !check.is_empty() {
        return match checks(endpoint).contains(&check) {
            true if passes(&server, check).await => reviews::answer(200, TEXT, "ok".to_owned()),
            true => failure(format!("internal server error: {check} failed: reason withheld\n")),
            false => reviews::answer(404, TEXT, "404 page not found\n".to_owned()),
        };
    }
    let mut excluded: Vec<&str> = context.query.all("exclude").flat_map(|names| names.split(',')).collect();
    let (mut text, mut failed) = (String::new(), Vec::new());
    for check in checks(endpoint) {
        if let Some(at) = excluded.iter().position(|name| name == check) {
            excluded.remove(at);
            text.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if passes(&server, check).await {
            text.push_str(&format!("[+]{check} ok\n"));
        } else {
            text.push_str(&format!("[-]{check} failed: reason withheld\n"));
            failed.push(*check);
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            names.join(",")
        ));
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, failed = failed.join(","), "health check failed");
        return failure(format!("{text}{endpoint} check failed\n"));
    }
    if context.query.get("verbose").is_none() {
        return reviews::answer(200, TEXT, "ok".to_owned());
    }
    reviews::answer(200, TEXT, format!("{text}{endpoint} check passed\n"))
}

fn failure(text: String) -> Response {
    reviews::answer(500, TEXT, text)
}

async fn passes(server: &ApiServer, check: &str) -> bool {
    match check {
        "etcd" => server.config.store.revision().await.is_ok(),
        "shutdown" => !server.serving.is_draining(),
        // The process answers; and nothing is served before the default roles are written.
        _ => true,
    }
}

/// A handful of figures in Prometheus' text format.
async fn metrics(server: &ApiServer) -> Response {
    let revision = server.config.store.revision().await.map(|revision| revision.0).unwrap_or(-1);
    let text = format!(
        "# HELP kubernetes_build_info A metric with a constant '1' value.\n# TYPE kubernetes_build_info gauge\n\
         kubernetes_build_info{{git_version=\"{version}\",major=\"1\",minor=\"36\"}} 1\n\
         # HELP sampan_apiserver_connections Open connections.\n# TYPE sampan_apiserver_connections gauge\n\
         sampan_apiserver_connections {connections}\n\
         # HELP sampan_apiserver_requests_total Requests over HTTPS and in memory.\n\
         # TYPE sampan_apiserver_requests_total counter\nsampan_apiserver_requests_total {requests}\n\
         # HELP sampan_store_revision The newest revision of the store.\n# TYPE sampan_store_revision gauge\n\
         sampan_store_revision {revision}\n",
        version = sampan_api::version::GIT_VERSION,
        connections = server.serving.connections(),
        requests = server.serving.requests(),
    );
    reviews::answer(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

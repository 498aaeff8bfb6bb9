//! Which handler answers what.

use std::sync::Arc;

use http::Request;
use sampan_api::scheme;

use crate::context::RequestContext;
use crate::respond::{self, Body, Response};
use crate::{
    ApiServer, discovery, handlers, health, metrics_api, openapi, proxy, reviews, subresources, tokens,
    version,
};

/// Sends a request that is authorized to its handler.
pub(crate) async fn route(
    server: Arc<ApiServer>,
    context: RequestContext,
    request: Request<Body>,
) -> Response {
    if !context.info.is_resource {
        return path(server, context, request).await;
    }
    let info = context.info.clone();
    if info.group == metrics_api::GROUP {
        return metrics_api::serve(server, context).await;
    }
    let Some(resource) = scheme::find(&info.group, &info.version, &info.resource) else {
        return unserved(&context);
    };
    if resource.namespaced
        && info.namespace.is_empty()
        && !matches!(info.verb.as_str(), "list" | "watch" | "create")
    {
        return respond::not_found_path();
    }
    // Reviews and tokens, which are posted and never stored, and what is passed on to kubelets and pods.
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("authentication.k8s.io" | "authorization.k8s.io", _, _) => {
            reviews::create(server, context, request).await
        }
        ("", "serviceaccounts", "token") => tokens::create_token(server, context, request).await,
        ("", "pods", "log") => proxy::pod_log(server, context, request).await,
        ("", "pods", "exec") => proxy::pod_exec(server, context, request).await,
        ("", "pods", "attach") => proxy::pod_attach(server, context, request).await,
        ("", "pods", "portforward") => proxy::pod_portforward(server, context, request).await,
        ("", "pods", "proxy") => proxy::pod_proxy(server, context, request).await,
        ("", "services", "proxy") => proxy::service_proxy(server, context, request).await,
        ("", "nodes", "proxy") => proxy::node_proxy(server, context, request).await,
        (_, _, "") => respond::result(handlers::serve(&server, &context, resource, request).await),
        (_, _, _) => respond::result(subresources::serve(&server, &context, resource, request).await),
    }
}

/// Resources that do not exist. There are no custom kinds, and kubectl, which asks for their definitions before
/// it says that a manifest's kind is unknown, is told so.
fn unserved(context: &RequestContext) -> Response {
    let info = &context.info;
    let definitions =
        (info.group.as_str(), info.version.as_str(), info.resource.as_str(), info.verb.as_str())
            == ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "list");
    if !definitions {
        return respond::not_found_path();
    }
    let list = serde_json::json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinitionList",
        "metadata": {"resourceVersion": "1"}, "items": [],
    });
    respond::json(200, &list)
}

/// Paths that are no resource.
async fn path(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    let path = context.info.path.clone();
    let pieces: Vec<&str> = path.split('/').filter(|piece| !piece.is_empty()).collect();
    match pieces.as_slice() {
        ["api" | "apis", ..] => discovery::serve(server, context, request).await,
        ["openapi", "v2" | "v3", ..] => openapi::serve(server, context, request).await,
        ["openid", "v1", "jwks"] | [".well-known", "openid-configuration"] => {
            tokens::serve_openid(server, context, request).await
        }
        ["version"] => version::serve(server, context, request).await,
        ["healthz" | "livez" | "readyz", ..] | ["metrics"] => health::serve(server, context, request).await,
        [] => discovery::serve_root(server, context, request).await,
        _ => respond::not_found_path(),
    }
}

//! A request's way from the door to its handler.

mod impersonation;
mod route;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::Request;
use rand::Rng;
use sampan_api::status::Status;

use crate::authorization::Decision;
use crate::context::{RequestContext, Warnings};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::respond::{self, Body, Response};
use crate::{ApiServer, authentication, authorization, protobuf};

/// How long a request that is no watch or stream may take (upstream: 60 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers a request: the one entry for HTTPS connections and in-memory clients. Who the peer is (client
/// certificate, in-memory user) stands in the request's extensions, where authentication finds it.
pub async fn handle(server: Arc<ApiServer>, request: Request<Body>) -> Response {
    let audit_id: Arc<str> = match request.headers().get("audit-id").and_then(|value| value.to_str().ok()) {
        Some(id) if !id.is_empty() && id.len() <= 64 => id.into(),
        _ => format!("{:032x}", rand::rng().random::<u128>()).into(),
    };
    let warnings = Warnings::default();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let answer =
        AssertUnwindSafe(serve(server, request, audit_id.clone(), warnings.clone())).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| {
        tracing::error!(%method, path, audit_id = &*audit_id, "the request's handler panicked");
        respond::status(&Status::internal_error(
            "this request caused the server to fail; the failure is logged",
        ))
    });
    if let Ok(value) = audit_id.parse() {
        response.headers_mut().insert("audit-id", value);
    }
    respond::add_warnings(&mut response, &warnings.texts());
    tracing::debug!(%method, path, audit_id = &*audit_id, status = response.status().as_u16(), "request");
    response
}

async fn serve(
    server: Arc<ApiServer>,
    request: Request<Body>,
    audit_id: Arc<str>,
    warnings: Warnings,
) -> Response {
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::new(request.method(), request.uri().path(), &query);
    let (mut parts, body) = request.into_parts();
    let user = match authentication::authenticate(&server, &parts).await {
        Ok(user) => user,
        Err(status) => return respond::status(&status),
    };
    authentication::forget_tokens(&mut parts.headers);
    let context = RequestContext {
        info: Arc::new(info),
        user: Arc::new(user),
        query: Arc::new(query),
        headers: Arc::new(std::mem::take(&mut parts.headers)),
        audit_id,
        warnings,
    };
    parts.headers.clone_from(&context.headers);
    let context = match impersonation::impersonate(&server, context).await {
        Ok(context) => context,
        Err(status) => return respond::status(&status),
    };
    match authorization::authorize(&server, &context.user, &context.info).await {
        Decision::Allow(_) => {}
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            return respond::status(&authorization::forbidden(&context.user, &context.info, &reason));
        }
    }
    let long = context.info.is_long_running();
    let request = Request::from_parts(parts, body);
    let answer = answer(server, context, request, long);
    if long {
        return answer.await;
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(response) => response,
        Err(_) => {
            respond::status(&Status::timeout("request did not complete within the allotted timeout", 0))
        }
    }
}

/// From the body on: all of it within the request's time.
async fn answer(
    server: Arc<ApiServer>,
    mut context: RequestContext,
    mut request: Request<Body>,
    long: bool,
) -> Response {
    if context.info.is_resource && !long {
        request = match protobuf::to_json(request, Arc::make_mut(&mut context.headers)).await {
            Ok(request) => request,
            Err(status) => return respond::status(&status),
        };
    }
    route::route(server, context, request).await
}

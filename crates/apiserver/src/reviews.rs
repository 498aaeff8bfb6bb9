//! Reviews: questions that are posted and answered at once, never stored. Who am I, may I, may they, whose token is it.

mod access;
mod rules;
mod token;

use std::sync::Arc;

use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use sampan_api::Status;
use sampan_api::scheme::split_api_version;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};
use crate::user::UserInfo;

/// Upstream's limit of a request's body.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// A whole answer.
pub(crate) fn answer(status: u16, content_type: &str, body: String) -> Response {
    http::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header("x-content-type-options", "nosniff")
        .body(Body::from(body))
        .unwrap_or_default()
}

/// 201 with an object.
pub(crate) fn answer_created(object: &Value) -> Response {
    answer(201, "application/json", object.to_string())
}

/// Reads a posted object of a kind (in version `v1`) from JSON, YAML or protobuf.
///
/// # Errors
/// 400 when it is malformed or of another kind, 413 when it is too large, 415 for other media types.
pub(crate) async fn read(request: Request<Body>, group: &str, kind: &str) -> Result<Value, Status> {
    let content_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|_| Status::request_entity_too_large(format!("limit is {MAX_BODY_BYTES}")))?
        .to_bytes();
    let malformed =
        |error: String| Status::bad_request(format!("the object provided is unrecognized: {error}"));
    let mut object: Value = match media.as_str() {
        "" | "application/json" | "*/*" => {
            serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?
        }
        "application/yaml" | "text/yaml" => {
            let text = std::str::from_utf8(&body).map_err(|e| malformed(e.to_string()))?;
            serde_saphyr::from_str(text).map_err(|e| malformed(e.to_string()))?
        }
        "application/vnd.kubernetes.protobuf" => crate::protobuf::decode(&body).map_err(malformed)?,
        _ => {
            return Err(Status::unsupported_media_type(&[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ]));
        }
    };
    if !object.is_object() {
        return Err(malformed("it is not an object".to_owned()));
    }
    let expected = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    for (field, want) in [("apiVersion", expected.as_str()), ("kind", kind)] {
        match object[field].as_str() {
            None | Some("") => object[field] = want.into(),
            Some(have) if have != want => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({have}) does not match the expected {what} ({want})"
                )));
            }
            Some(_) => {}
        }
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    Ok(object)
}

/// Answers the groups authentication.k8s.io and authorization.k8s.io.
pub async fn create(server: Arc<ApiServer>, context: RequestContext, request: Request<Body>) -> Response {
    match review(&server, &context, request).await {
        Ok(object) => answer_created(&object),
        Err(status) => respond::status(&status),
    }
}

async fn review(
    server: &ApiServer,
    context: &RequestContext,
    request: Request<Body>,
) -> Result<Value, Status> {
    let info = &context.info;
    if info.verb != "create" || !info.subresource.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let kind = match info.resource.as_str() {
        "subjectaccessreviews" => "SubjectAccessReview",
        "localsubjectaccessreviews" => "LocalSubjectAccessReview",
        "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
        "selfsubjectrulesreviews" => "SelfSubjectRulesReview",
        "selfsubjectreviews" => "SelfSubjectReview",
        "tokenreviews" => "TokenReview",
        _ => return Err(Status::path_not_found()),
    };
    let mut object = read(request, &info.group, kind).await?;
    debug_assert_eq!(split_api_version(object["apiVersion"].as_str().unwrap_or_default()).0, info.group);
    let status = match kind {
        "SelfSubjectReview" => {
            object["metadata"]["creationTimestamp"] = now().into();
            json!({"userInfo": user(&context.user)})
        }
        "SelfSubjectRulesReview" => rules::review(server, context, &object).await?,
        "TokenReview" => token::review(server, &object).await?,
        _ => access::review(server, context, kind, &object).await?,
    };
    object["status"] = status;
    Ok(object)
}

fn user(user: &UserInfo) -> Value {
    serde_json::to_value(user).unwrap_or_default()
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

//! `pods/log`: a container's output, streamed from the kubelet.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use sampan_api::{FieldError, Status};

use super::stream::encode;
use super::{get, node, pass, pod};
use crate::ApiServer;
use crate::context::RequestContext;
use crate::query::Query;
use crate::respond::{self, Body, Response};

/// How much of a kubelet's error text is passed on.
const MAX_ERROR_BYTES: usize = 50_000;

/// Answers with a container's log.
pub async fn pod_log(server: Arc<ApiServer>, context: RequestContext, _request: Request<Body>) -> Response {
    match log(&server, &context).await {
        Ok(response) => response,
        Err(status) => respond::status(&status),
    }
}

async fn log(server: &ApiServer, context: &RequestContext) -> Result<Response, Status> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    let parameters = parameters(&context.query, name)?;
    let pod = get(server, "pods", namespace, name).await?;
    let container = pod::container(&pod, context.query.non_empty("container"))?;
    let Some(node) = pod::node_name(&pod) else {
        // Nothing was written yet.
        let empty = http::Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty());
        return Ok(empty.unwrap_or_default());
    };
    let verified = !context.query.flag("insecureSkipTLSVerifyBackend");
    let backend = node::kubelet(server, node, verified).await?;
    let separator = if parameters.is_empty() { "" } else { "?" };
    let uri: Uri = format!("/containerLogs/{namespace}/{name}/{container}{separator}{parameters}")
        .parse()
        .map_err(|error| Status::bad_request(format!("{error}")))?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let response = backend.send(request).await?;
    if response.status() != StatusCode::OK {
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await;
        let text =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        return Err(kubelet_error(code, name, &text));
    }
    let mut response = pass::answer(response);
    response.headers_mut().remove(LOCATION);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// A kubelet's refusal in the API's words.
pub(super) fn kubelet_error(code: u16, pod: &str, text: &str) -> Status {
    match code {
        400 => Status::bad_request(text.trim_end()),
        404 => Status {
            message: format!("the server could not find the requested resource ( pods/log {pod})"),
            ..Status::not_found("", "pods/log", pod)
        },
        500 => Status::internal_error(text.trim_end()),
        _ => Status { message: text.trim_end().to_owned(), code, ..Status::default() },
    }
}

/// Checks the options and writes them as the kubelet's parameters.
pub(super) fn parameters(query: &Query, pod: &str) -> Result<String, Status> {
    let mut out = Vec::new();
    let mut errors = Vec::new();
    let number = |name: &str| -> Result<Option<i64>, Status> {
        let Some(text) = query.non_empty(name) else { return Ok(None) };
        let parsed = text.parse::<i64>();
        parsed
            .map(Some)
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    };
    // `hooks` is ours: what lifecycle hooks printed (docs/lifecycle.md).
    for flag in ["follow", "previous", "timestamps", "hooks"] {
        if query.flag(flag) {
            out.push(format!("{flag}=true"));
        }
    }
    for (name, least, why) in [
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
    ] {
        if let Some(value) = number(name)? {
            if value < least {
                errors.push(FieldError::invalid(name, value, why));
            }
            out.push(format!("{name}={value}"));
        }
    }
    if let Some(time) = query.non_empty("sinceTime") {
        if query.non_empty("sinceSeconds").is_some() {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", why));
        }
        time.parse::<Timestamp>()
            .map_err(|_| Status::bad_request(format!("parsing time {time:?}: it is not in RFC 3339")))?;
        out.push(format!("sinceTime={}", encode(time)));
    }
    if let Some(stream) = query.non_empty("stream") {
        if !matches!(stream, "All" | "Stdout" | "Stderr") {
            errors.push(FieldError::not_supported("stream", stream, &["All", "Stderr", "Stdout"]));
        } else if stream != "All" && query.non_empty("tailLines").is_some() {
            let why = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden("stream", why));
        }
        out.push(format!("stream={}", encode(stream)));
    }
    if errors.is_empty() {
        Ok(out.join("&"))
    } else {
        Err(Status::invalid("", "PodLogOptions", pod, &errors))
    }
}

//! Answers: objects in the form that the client accepts, and Status objects for everything that went wrong.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY,
};
use sampan_api::Status;
use serde_json::Value;

use crate::context::RequestContext;
use crate::negotiate::Accepted;

/// The body of requests and answers.
pub type Body = axum::body::Body;
/// An answer.
pub type Response = http::Response<Body>;

/// Larger answers are compressed when the client takes that (upstream's bound).
const GZIP_FROM: usize = 128 << 10;

/// An answer with a body that is complete.
pub(crate) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer.
pub(crate) fn json(code: u16, body: &Value) -> Response {
    bytes(code, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// A Status as the whole answer.
pub(crate) fn status(status: &Status) -> Response {
    let code = if status.code == 0 { 200 } else { status.code };
    let mut response = json(code, &status.to_value());
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0
        && let Ok(value) = HeaderValue::from_str(&retry.to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    if code == 401 {
        response.headers_mut().insert(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"kubernetes-master\""),
        );
    }
    response
}

/// A handler's outcome.
pub(crate) fn result(result: Result<Response, Status>) -> Response {
    result.unwrap_or_else(|failure| status(&failure))
}

/// 404 for a path that leads nowhere.
pub(crate) fn not_found_path() -> Response {
    bytes(404, "text/plain; charset=utf-8", "404 page not found\n")
}

/// Adds `Warning: 299 - "..."` headers.
pub(crate) fn add_warnings(response: &mut Response, texts: &[String]) {
    for text in texts {
        let quoted: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}

/// An object in the form that was accepted: JSON (indented when asked for) or YAML.
pub(crate) fn value(
    context: &RequestContext,
    accepted: &Accepted,
    code: u16,
    body: &Value,
) -> Result<Response, Status> {
    let failure =
        |error: &dyn std::fmt::Display| Status::internal_error(format!("cannot write the answer: {error}"));
    if accepted.yaml {
        let text = serde_saphyr::to_string(body).map_err(|error| failure(&error))?;
        return Ok(complete(context, code, "application/yaml", text.into()));
    }
    let text = if accepted.pretty { serde_json::to_vec_pretty(body) } else { serde_json::to_vec(body) };
    Ok(complete(context, code, "application/json", text.map_err(|error| failure(&error))?.into()))
}

/// An answer whose bytes are there, compressed when that is worth it.
pub(crate) fn complete(
    context: &RequestContext,
    code: u16,
    content_type: &'static str,
    body: Bytes,
) -> Response {
    let accepts = context.headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let gzip = accepts.is_some_and(|value| value.split(',').any(|coding| coding.trim().starts_with("gzip")));
    if !gzip || body.len() < GZIP_FROM {
        return bytes(code, content_type, body);
    }
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(small) => {
            let mut response = bytes(code, content_type, small);
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            response
        }
        Err(_) => bytes(code, content_type, body),
    }
}

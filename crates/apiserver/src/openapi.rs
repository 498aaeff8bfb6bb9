//! `/openapi/v2` and `/openapi/v3`: the schema documents, from which `kubectl explain` and client-side validation work.
//!
//! The documents are written on demand from compressed tables and nothing of them is kept: clients cache them by
//! ETag (v2) or by the hash in the index's URLs (v3).

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH,
    VARY,
};
use http::{HeaderMap, Request};
use sampan_api::schema::openapi;

use crate::ApiServer;
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Upstream's older spelling, which clients still ask for.
const V2_PROTOBUF_AT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// Smaller answers are not worth compressing.
const GZIP_FROM_BYTES: usize = 4 * 1024;

fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Answers everything below `/openapi/`.
pub async fn serve(_server: Arc<ApiServer>, context: RequestContext, _request: Request<Body>) -> Response {
    let path = context.info.path.trim_end_matches('/').to_owned();
    if path == "/openapi/v3" {
        let index = openapi::openapi_v3_index().to_string().into_bytes();
        return document(&context, "application/json", None, move || index).await;
    }
    let etag = format!("\"{}\"", openapi::hash());
    if path == "/openapi/v2" {
        let accept = header(&context.headers, &ACCEPT);
        return if accept.contains(V2_PROTOBUF) || accept.contains(V2_PROTOBUF_AT) {
            document(&context, V2_PROTOBUF, Some(etag), openapi::openapi_v2_protobuf).await
        } else {
            document(&context, "application/json", Some(etag), openapi::openapi_v2_json).await
        };
    }
    let Some(name) = path.strip_prefix("/openapi/v3/").map(str::to_owned) else {
        return respond::not_found_path();
    };
    let made = tokio::task::spawn_blocking(move || openapi::openapi_v3(&name)).await;
    match made {
        Ok(Some(bytes)) => {
            let immutable = context.query.non_empty("hash").is_some_and(|hash| hash == openapi::hash());
            let mut response = document(&context, "application/json", Some(etag), move || bytes).await;
            if immutable {
                // The URL names the content: it can never change.
                response
                    .headers_mut()
                    .insert(CACHE_CONTROL, http::HeaderValue::from_static("public, immutable"));
                let expires = http::HeaderValue::from_static("Fri, 31 Dec 2100 00:00:00 GMT");
                response.headers_mut().insert(EXPIRES, expires);
            }
            response
        }
        Ok(None) => respond::not_found_path(),
        Err(error) => respond::status(&sampan_api::Status::internal_error(error)),
    }
}

/// Answers with what `make` writes, or with 304 when the client has it.
async fn document(
    context: &RequestContext,
    content_type: &'static str,
    etag: Option<String>,
    make: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Response {
    let mut builder = http::Response::builder().header(VARY, "Accept, Accept-Encoding");
    if let Some(etag) = &etag {
        builder = builder.header(ETAG, etag);
        if header(&context.headers, &IF_NONE_MATCH).split(',').any(|have| have.trim() == etag) {
            return builder.status(304).body(Body::empty()).unwrap_or_default();
        }
    }
    let gzip = header(&context.headers, &ACCEPT_ENCODING).contains("gzip");
    // A megabyte of JSON takes milliseconds: not on a thread that serves others.
    let made = tokio::task::spawn_blocking(move || {
        let bytes = make();
        if gzip && bytes.len() >= GZIP_FROM_BYTES {
            (compress(&bytes).unwrap_or(bytes), true)
        } else {
            (bytes, false)
        }
    });
    let (bytes, compressed) = match made.await {
        Ok(made) => made,
        Err(error) => return respond::status(&sampan_api::Status::internal_error(error)),
    };
    // What could not be compressed begins with `{`, never with gzip's mark.
    if compressed && bytes.starts_with(&[0x1f, 0x8b]) {
        builder = builder.header(CONTENT_ENCODING, "gzip");
    }
    builder.status(200).header(CONTENT_TYPE, content_type).body(Body::from(bytes)).unwrap_or_default()
}

fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

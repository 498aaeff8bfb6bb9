//! Passing a request through to a backend and its answer back, with or without an upgrade.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HeaderName, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sampan_api::Status;

use super::backend::Backend;
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};

/// What concerns one hop only, beside the headers that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    UPGRADE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
];

/// Whether the client wants to leave HTTP.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut named = connection(headers);
    named.any(|token| token.eq_ignore_ascii_case("upgrade")) && headers.contains_key(UPGRADE)
}

/// What the header `Connection` names.
fn connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Removes what concerns this hop only.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = connection(headers).map(str::to_owned).collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What follows `/proxy` in the path of `.../NAME/proxy/...`; `None` when nothing does, not even a slash.
pub(super) fn rest_of_path<'a>(path: &'a str, parts: &[String]) -> Option<&'a str> {
    // The words before may be anything ("proxy" too), so the path is walked from its front: what stands before the
    // resource, then resource, name and "proxy". Empty pieces do not count, as in `RequestInfo`.
    let pieces = path.split('/').filter(|piece| !piece.is_empty()).count();
    let wanted = pieces.checked_sub(parts.len())? + 3;
    let (mut at, mut seen) = (0, 0);
    for piece in path.split('/') {
        at += piece.len();
        if !piece.is_empty() {
            seen += 1;
        }
        if seen == wanted {
            return path.get(at..).filter(|rest| !rest.is_empty());
        }
        at += 1;
    }
    None
}

/// Passes a `proxy` request on: the path behind `/proxy`, the query, body and headers.
pub(super) async fn through(context: &RequestContext, backend: Backend, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let rest = rest_of_path(&path, &context.info.parts).unwrap_or_default();
    if rest.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        // Relative links in what is shown only work below a slash.
        return http::Response::builder()
            .status(StatusCode::MOVED_PERMANENTLY)
            .header(LOCATION, format!("{path}/{query}"))
            .body(Body::empty())
            .unwrap_or_default();
    }
    let target = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    match target.parse::<Uri>() {
        Ok(uri) if is_upgrade(request.headers()) => upgrade(backend, uri, request).await,
        Ok(uri) => plain(backend, uri, request).await,
        Err(error) => respond::status(&Status::bad_request(error.to_string())),
    }
}

/// The client's headers without those of the hop, and without whom it acts for (its token went with authentication).
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    remove_hop_by_hop(&mut out);
    let impersonation: Vec<HeaderName> =
        out.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        out.remove(name);
    }
    out
}

/// An exchange that stays HTTP.
pub(super) async fn plain(backend: Backend, uri: Uri, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(body);
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = uri;
    *onward.headers_mut() = forwarded(&parts.headers);
    onward.headers_mut().remove(COOKIE);
    match backend.send(onward).await {
        Ok(response) => answer(response),
        Err(mut status) => {
            // A backend that is not there: upstream says 503 for proxied requests.
            status.code = 503;
            status.reason = "ServiceUnavailable".to_owned();
            status.message = format!("error trying to reach service: {}", status.message);
            respond::status(&status)
        }
    }
}

/// A backend's answer as ours; its body is passed on as it comes.
pub(super) fn answer(response: http::Response<Incoming>) -> Response {
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions = http::Extensions::default();
    Response::from_parts(parts, Body::new(body))
}

/// An exchange that turns into a stream of bytes both ways (SPDY/3.1, WebSocket): both sides are told 101, and from then
/// on nothing is looked at.
pub(super) async fn upgrade(backend: Backend, uri: Uri, mut request: Request<Body>) -> Response {
    let client = hyper::upgrade::on(&mut request);
    let protocol = request.headers().get(UPGRADE).cloned();
    let mut onward = Request::new(Body::empty());
    *onward.method_mut() = request.method().clone();
    *onward.uri_mut() = uri;
    *onward.headers_mut() = forwarded(request.headers());
    onward.headers_mut().remove(CONTENT_LENGTH);
    onward.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        onward.headers_mut().insert(UPGRADE, protocol);
    }
    let mut response = match backend.send(onward).await {
        Ok(response) => response,
        Err(status) => return respond::status(&status),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return answer(response);
    }
    let server = hyper::upgrade::on(&mut response);
    let mut switched = http::Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = response.headers().clone();
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok((client, server)) => (client, server),
            Err(error) => return tracing::debug!(%error, "a stream was not upgraded"),
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, "a stream ended");
        }
    });
    switched
}

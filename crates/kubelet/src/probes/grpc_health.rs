//! `grpc.health.v1.Health/Check` by hand: one unary call with a one-field message in each direction, which is
//! less than a generated client.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Asks; the answer is the `ServingStatus` number, 1 for SERVING.
pub(super) async fn check(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let stream = crate::http_get::dial(host, port).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    // Aborted also when the probe's time is over.
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let authority = crate::http_get::authority(host, port);
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_body(service)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let header_status = grpc_status(answer.headers());
    let body = Limited::new(answer.into_body(), 4_096).collect().await.map_err(|error| error.to_string())?;
    if let Some(error) = header_status.or_else(|| body.trailers().and_then(grpc_status)) {
        return Err(error);
    }
    Ok(serving_status(&body.to_bytes()))
}

/// The name of a `ServingStatus`.
pub(super) fn status_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// The error in `grpc-status`, if it is one.
fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?.to_str().ok()?;
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    (status != "0").then(|| format!("rpc error: code = {status} desc = {message}"))
}

/// A length-prefixed message with `service` as field 1.
fn request_body(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    body.extend_from_slice(&message);
    body.into()
}

/// Field 1 of the answer, 0 (UNKNOWN) when it is absent.
fn serving_status(body: &[u8]) -> u64 {
    match body.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

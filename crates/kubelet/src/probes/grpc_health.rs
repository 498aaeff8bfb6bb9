//! `grpc.health.v1.Health/Check` by hand: one unary call with a one-field message in each direction, which is
//! less than a generated client.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::cri::go_error;
use crate::{go_duration, http_get};

/// Asks whether `service` is SERVING; connection and answer have `timeout` together.
///
/// # Errors
/// The text that upstream has for it.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let (address, within) = (http_get::authority(host, port), go_duration::format(timeout));
    let unconnected = |_| {
        format!("timeout: failed to connect service {address:?} within {within}: context deadline exceeded")
    };
    let stream = timeout_at(deadline, http_get::dial(host, port))
        .await
        .map_err(unconnected)?
        .map_err(|error| format!("error: failed to connect service at {address:?}: {error}"))?;
    let unanswered = || format!("timeout: health rpc did not complete within {within}");
    let answer = timeout_at(deadline, call(stream, &address, service)).await.map_err(|_| unanswered())?;
    match answer {
        Ok(1) => Ok(()),
        Ok(status) => Err(format!("service unhealthy (responded with {:?})", status_name(status))),
        Err(error) => Err(match error.code() {
            Code::Unimplemented => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                error.message()
            ),
            Code::DeadlineExceeded => unanswered(),
            _ => format!("error: health rpc probe failed: {}", go_error(&error)),
        }),
    }
}

/// The call; the answer is the `ServingStatus` number, 1 for SERVING.
async fn call(stream: TcpStream, address: &str, service: &str) -> Result<u64, Status> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(unavailable)?;
    // Aborted also when the probe's time is over.
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_body(service)))
        .map_err(unavailable)?;
    let answer = sender.send_request(request).await.map_err(unavailable)?;
    let refused = grpc_error(answer.headers());
    let body = Limited::new(answer.into_body(), 4_096).collect().await.map_err(unavailable)?;
    match refused.or_else(|| body.trailers().and_then(grpc_error)) {
        Some(error) => Err(error),
        None => Ok(serving_status(&body.to_bytes())),
    }
}

/// The call did not come about or broke off.
fn unavailable(error: impl Display) -> Status {
    Status::unavailable(error.to_string())
}

/// The name of a `ServingStatus`.
fn status_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// The error in `grpc-status`, if it is one. Its details are left out: tonic trusts them to be well-formed, and they
/// come from whoever is in the pod.
fn grpc_error(headers: &HeaderMap) -> Option<Status> {
    let mut known = HeaderMap::new();
    for name in ["grpc-status", "grpc-message"] {
        if let Some(value) = headers.get(name) {
            known.insert(name, value.clone());
        }
    }
    Status::from_header_map(&known).filter(|status| status.code() != Code::Ok)
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

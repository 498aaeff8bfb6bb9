//! Request bodies, read whole within a bound.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sampan_api::Status;

use crate::respond::Body;

/// The largest body that is read (upstream's bound).
pub const LIMIT: usize = 3 << 20;

/// Reads a body.
///
/// # Errors
/// 413 when it is too large, 400 when it breaks off.
pub async fn read(request: Request<Body>) -> Result<Bytes, Status> {
    match Limited::new(request.into_body(), LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::request_entity_too_large(format!("limit is {LIMIT}")))
        }
        Err(error) => Err(Status::bad_request(format!("the body cannot be read: {error}"))),
    }
}

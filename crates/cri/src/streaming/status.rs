//! The `Status` object that ends an exec: how clients learn the exit code.

use serde_json::json;

use super::{ExitStatus, StreamError};

/// The protocol's generation decides what the error stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// v4 and v5: a `Status` in JSON, also for success.
    Json,
    /// Before v4: the bare text, nothing for success.
    Text,
}

/// What to write to the error stream at the end of an exec.
pub(super) fn exec_outcome(
    format: ErrorFormat,
    command: &[String],
    outcome: &Result<ExitStatus, StreamError>,
) -> Vec<u8> {
    match (format, outcome) {
        (ErrorFormat::Json, Ok(ExitStatus { code: 0 })) => success(),
        (ErrorFormat::Json, Ok(ExitStatus { code })) => {
            let message = format!("command terminated with non-zero exit code: {}", non_zero(command, *code));
            json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            })
            .to_string()
            .into_bytes()
        }
        (ErrorFormat::Json, Err(error)) => {
            internal(&format!("error executing command in container: {error}"))
        }
        (ErrorFormat::Text, Ok(ExitStatus { code: 0 })) => Vec::new(),
        (ErrorFormat::Text, Ok(ExitStatus { code })) => {
            format!("error executing command in container: {}", non_zero(command, *code)).into_bytes()
        }
        (ErrorFormat::Text, Err(error)) => {
            format!("error executing command in container: {error}").into_bytes()
        }
    }
}

/// What to write to the error stream at the end of an attach.
pub(super) fn attach_outcome(format: ErrorFormat, outcome: &Result<(), StreamError>) -> Vec<u8> {
    match (format, outcome) {
        (ErrorFormat::Json, Ok(())) => success(),
        (ErrorFormat::Json, Err(error)) => internal(&format!("error attaching to container: {error}")),
        (ErrorFormat::Text, Ok(())) => Vec::new(),
        (ErrorFormat::Text, Err(error)) => format!("error attaching to container: {error}").into_bytes(),
    }
}

/// A failure before anything ran, such as a stream that the client did not open.
pub(super) fn bad_request(format: ErrorFormat, message: &str) -> Vec<u8> {
    match format {
        ErrorFormat::Json => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "BadRequest", "code": 400,
        })
        .to_string()
        .into_bytes(),
        ErrorFormat::Text => message.as_bytes().to_vec(),
    }
}

fn success() -> Vec<u8> {
    json!({"metadata": {}, "status": "Success"}).to_string().into_bytes()
}

fn internal(message: &str) -> Vec<u8> {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
    .to_string()
    .into_bytes()
}

fn non_zero(command: &[String], code: i32) -> String {
    format!("error executing command [{}], exit code {code}", command.join(" "))
}

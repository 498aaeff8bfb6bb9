//! Probes and lifecycle hooks, and the handlers that both use (HOOK-14, HOOK-35, POD-38, POD-42).

use serde_json::Value;

use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, non_negative, one_of, port, required_text},
};

pub(super) fn probes(container: &Value, path: &Path, out: &mut Errors) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(field) else { continue };
        let path = path.child(field);
        handler(probe, 0, &path, out);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            non_negative(probe, field, &path, out);
        }
        let grace = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
        if let Some(n) = grace {
            let at = path.child("terminationGracePeriodSeconds");
            if field == "readinessProbe" {
                out.push(FieldError::invalid(at, n, "must not be set for readinessProbes"));
            } else if n <= 0 {
                out.push(FieldError::invalid(at, n, "must be greater than 0"));
            }
        }
        let successes = probe.get("successThreshold").and_then(Value::as_i64).unwrap_or(1);
        if field != "readinessProbe" && successes != 1 {
            out.push(FieldError::invalid(path.child("successThreshold"), successes, "must be 1"));
        }
    }
}

pub(super) fn lifecycle(container: &Value, path: &Path, grace: i64, out: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(found) = container.pointer(&format!("/lifecycle/{hook}")) {
            handler(found, grace, &path.child("lifecycle").child(hook), out);
        }
    }
}

fn handler(handler: &Value, grace: i64, path: &Path, out: &mut Errors) {
    let mut count = 0;
    let mut another = |field: &str, out: &mut Errors| {
        count += 1;
        if count > 1 {
            out.push(FieldError::forbidden(path.child(field), "may not specify more than 1 handler type"));
        }
        count == 1
    };
    if let Some(exec) = handler.get("exec")
        && another("exec", out)
        && items(exec, "command").is_empty()
    {
        out.push(FieldError::required(path.child("exec").child("command"), ""));
    }
    if let Some(http) = handler.get("httpGet")
        && another("httpGet", out)
    {
        let path = path.child("httpGet");
        required_text(http, "path", &path, out);
        port(http.get("port"), &path.child("port"), out);
        one_of(str_of(http, "scheme"), &["HTTP", "HTTPS"], &path.child("scheme"), out);
        for header in items(http, "httpHeaders") {
            let name = str_of(header, "name");
            invalid_all(names::http_header_name(name), name, &path.child("httpHeaders"), out);
        }
    }
    if let Some(tcp) = handler.get("tcpSocket")
        && another("tcpSocket", out)
    {
        port(tcp.get("port"), &path.child("tcpSocket").child("port"), out);
    }
    if let Some(grpc) = handler.get("grpc")
        && another("grpc", out)
    {
        port(grpc.get("port"), &path.child("grpc").child("port"), out);
    }
    if let Some(sleep) = handler.get("sleep")
        && another("sleep", out)
    {
        let seconds = sleep.get("seconds").and_then(Value::as_i64).unwrap_or(0);
        if seconds < 0 || seconds > grace {
            let message =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            out.push(FieldError::invalid(path.child("sleep"), seconds, message));
        }
    }
    if count == 0 {
        out.push(FieldError::required(path, "must specify a handler type"));
    }
}

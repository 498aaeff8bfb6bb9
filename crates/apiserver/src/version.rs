//! `/version`: which Kubernetes this API server speaks, and what it was built from.

use std::sync::Arc;

use http::Request;
use sampan_api::version::{GIT_VERSION, MAJOR, MINOR};
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::respond::{Body, Response};
use crate::{ApiServer, reviews};

/// The document behind `/version` (upstream's `version.Info`).
pub fn info() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("SAMPAN_GIT_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("SAMPAN_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": concat!("none (sampan ", env!("CARGO_PKG_VERSION"), ", Rust)"),
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

/// Answers `/version`.
pub async fn serve(_server: Arc<ApiServer>, _context: RequestContext, _request: Request<Body>) -> Response {
    // Upstream indents this one document.
    let text = serde_json::to_string_pretty(&info()).unwrap_or_default();
    reviews::answer(200, "application/json", text)
}

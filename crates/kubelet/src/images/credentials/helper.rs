//! `docker-credential-*` programs, which `credHelpers` and `credsStore` of the node's file name. Upstream's
//! kubelet ignores both; who uses `docker login` with a store wonders why.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Login, program};

const LIMIT: Duration = Duration::from_secs(30);
/// What helpers say when they have no login, on either output; everybody's words are the same.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-<name> get` for the login at `server`.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Login>, String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    ask(Path::new(&format!("docker-credential-{name}")), server).await
}

async fn ask(program: &Path, server: &str) -> Result<Option<Login>, String> {
    let ended = program::run(program, &["get".to_owned()], &[], server.as_bytes(), LIMIT).await?;
    if !ended.success {
        let said = String::from_utf8_lossy(&ended.stdout);
        if said.contains(NOT_FOUND) || ended.complaint.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(format!("it failed: {}", ended.complaint));
    }
    // The parser's words could repeat a part of the answer.
    let answer: Answer = serde_json::from_slice(&ended.stdout)
        .map_err(|_| "its answer is not the expected JSON".to_owned())?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Login::IdentityToken(answer.secret),
        _ => Login::Password { username: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn asked(script: &str) -> Result<Option<Login>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-x");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask(&path, "reg.io").await
    }

    #[tokio::test]
    async fn the_protocol_of_docker_credential_helpers() {
        let login =
            asked(r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1-$s\",\"Secret\":\"p\"}""#).await;
        assert_eq!(login, Ok(Some(Login::Password { username: "get-reg.io".into(), password: "p".into() })));
        let token = asked(r#"echo '{"Username":"<token>","Secret":"t"}'"#).await;
        assert_eq!(token, Ok(Some(Login::IdentityToken("t".into()))));
        assert_eq!(asked(&format!("echo {NOT_FOUND}; exit 1")).await, Ok(None));
        assert_eq!(asked("echo locked >&2; exit 1").await, Err("it failed: locked".into()));
        let error = asked("echo hunter2").await.unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        let error = asked("dd if=/dev/zero bs=65536 count=64 2>/dev/null").await.unwrap_err();
        assert!(error.contains("more than"), "{error}");
        assert!(get("../x", "reg.io").await.is_err());
    }
}

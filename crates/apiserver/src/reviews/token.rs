//! TokenReview: whose token is it, and is it meant for this audience.

use sampan_api::Status;
use serde_json::{Value, json};

use super::user;
use crate::ApiServer;
use crate::user::AUTHENTICATED;

pub(super) async fn review(server: &ApiServer, object: &Value) -> Result<Value, Status> {
    let token = object["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        serde_json::from_value(object["spec"]["audiences"].clone()).unwrap_or_default();
    let own = server.tokens.issuer().to_owned();
    if let Some(mut found) = server.authentication.token_file().user(token) {
        if !found.is_in(AUTHENTICATED) {
            found.groups.push(AUTHENTICATED.to_owned());
        }
        // Static tokens know no audiences: they are the API server's.
        return Ok(if audiences.is_empty() || audiences.contains(&own) {
            json!({"authenticated": true, "user": user(&found), "audiences": [own]})
        } else {
            json!({"error": "[invalid bearer token, token lookup failed]", "user": {}})
        });
    }
    let now = jiff::Timestamp::now().as_second();
    Ok(match server.tokens.verify(token, &audiences, &server.authorization, now).await {
        Ok(found) => json!({"authenticated": true, "user": user(&found.user), "audiences": found.audiences}),
        Err(error) => json!({"error": format!("[invalid bearer token, {error}]"), "user": {}}),
    })
}

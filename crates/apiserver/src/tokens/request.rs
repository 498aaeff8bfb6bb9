//! `serviceaccounts/NAME/token`: TokenRequest.

use std::sync::Arc;

use http::Request;
use jiff::Timestamp;
use sampan_api::{FieldError, Status, scheme};
use serde_json::{Value, json};

use super::{Claims, Named};
use crate::context::RequestContext;
use crate::respond::{self, Body, Response};
use crate::{ApiServer, reviews};

const GROUP: &str = "authentication.k8s.io";
const DEFAULT_SECONDS: i64 = 60 * 60;
const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
/// What a pod's projected token asks for. Clients that do not read the file again would break after an hour, so
/// such a token lives a year and its use is only warned about after the hour.
const PROJECTED_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// A random (version 4) UUID.
pub(super) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Answers a TokenRequest.
pub async fn create_token(
    server: Arc<ApiServer>,
    context: RequestContext,
    request: Request<Body>,
) -> Response {
    match create(&server, &context, request).await {
        Ok(object) => reviews::answer_created(&object),
        Err(status) => respond::status(&status),
    }
}

async fn create(
    server: &ApiServer,
    context: &RequestContext,
    request: Request<Body>,
) -> Result<Value, Status> {
    let (namespace, name) = (&context.info.namespace, &context.info.name);
    if context.info.verb != "create" {
        return Err(Status::method_not_allowed());
    }
    let mut object = reviews::read(request, GROUP, "TokenRequest").await?;
    for (field, want, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        let given = object["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && given != want {
            return Err(Status::bad_request(format!(
                "the {what} of the provided object does not match the {what} sent on the request"
            )));
        }
    }
    let account = get(server, "serviceaccounts", namespace, name).await?;
    let spec = &object["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let mut audiences: Vec<String> = serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
    let own = server.tokens.issuer().to_owned();
    if audiences.is_empty() {
        audiences.push(own.clone());
    }
    restrict_node(context, &spec["boundObjectRef"], name)?;
    let now = Timestamp::now().as_second();
    let mut claims = Claims {
        issued_at: now,
        namespace: namespace.clone(),
        service_account: named(&account),
        audiences,
        ..Claims::default()
    };
    bind(server, namespace, name, &object["spec"]["boundObjectRef"], &mut claims).await?;
    if let Some(node) = context.user.node_name()
        && claims.node.as_ref().is_none_or(|bound| bound.name != node)
    {
        let why = format!("node {node:?} requested token bound to a pod scheduled on a different node");
        return Err(forbidden(name, &why));
    }

    let extended = claims.pod.is_some() && seconds == PROJECTED_SECONDS && claims.audiences == [own];
    claims.expires_at = now + if extended { EXTENDED_SECONDS } else { seconds };
    claims.warn_after = extended.then_some(now + seconds);
    let token = server.tokens.issue(&claims).map_err(Status::internal_error)?;

    object["metadata"]["name"] = name.clone().into();
    object["metadata"]["namespace"] = namespace.clone().into();
    object["metadata"]["creationTimestamp"] = rfc3339(now).into();
    object["spec"]["audiences"] = json!(claims.audiences);
    object["spec"]["expirationSeconds"] = seconds.into();
    if object["spec"]["boundObjectRef"].is_null() {
        object["spec"]["boundObjectRef"] = Value::Null;
    }
    object["status"] = json!({"token": token, "expirationTimestamp": rfc3339(now + seconds)});
    Ok(object)
}

fn forbidden(account: &str, why: &str) -> Status {
    Status::forbidden("", "serviceaccounts", account, why)
}

/// A kubelet gets tokens only for pods (upstream's NodeRestriction): one that fell into wrong hands must not outlive the
/// pods that it runs.
fn restrict_node(context: &RequestContext, reference: &Value, account: &str) -> Result<(), Status> {
    let Some(node) = context.user.node_name() else { return Ok(()) };
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let why = if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        "not bound to a pod"
    } else if text("uid").is_empty() {
        "with a pod binding without a uid"
    } else {
        return Ok(());
    };
    Err(forbidden(account, &format!("node {node:?} requested token {why}")))
}

fn rfc3339(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn check_seconds(seconds: i64) -> Result<(), Status> {
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(Status::invalid(GROUP, "TokenRequest", "", &[error]))
}

fn named(object: &Value) -> Named {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Named { name: text("name"), uid: text("uid") }
}

async fn get(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let not_found = || Status::not_found("", plural, name);
    let resource = scheme::find("", "v1", plural).ok_or_else(not_found)?;
    server.registry.get(resource, namespace, name).await?.ok_or_else(not_found)
}

/// Takes in what the token is to be bound to.
async fn bind(
    server: &ApiServer,
    namespace: &str,
    account: &str,
    reference: &Value,
    claims: &mut Claims,
) -> Result<(), Status> {
    if !reference.is_object() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, name, wanted) = (text("kind"), text("name"), text("uid"));
    let (group, version) = scheme::split_api_version(text("apiVersion"));
    let uid = match (group, kind) {
        ("", "Pod") => {
            let pod = get(server, "pods", namespace, name).await?;
            if pod["spec"]["serviceAccountName"] != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                let uid = server.authorization.bound_object("nodes", "", node).map(|node| node.uid);
                claims.node = Some(Named { name: node.to_owned(), uid: uid.unwrap_or_default() });
            }
            claims.pod.insert(named(&pod)).uid.clone()
        }
        ("", "Node") => {
            let node = get(server, "nodes", "", name).await?;
            claims.node.insert(named(&node)).uid.clone()
        }
        ("", "Secret") => {
            let secret = get(server, "secrets", namespace, name).await?;
            claims.secret.insert(named(&secret)).uid.clone()
        }
        _ => {
            let of = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {of}, Kind={kind}"
            )));
        }
    };
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
             have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &why));
    }
    Ok(())
}

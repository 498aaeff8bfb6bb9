//! Certificate signing requests: who asks stands in them, and a node that asks for its own identity again gets it.
//!
//! Upstream has controllers for this (csrapproving, csrsigning). Here the server that holds the authority does it as the
//! request is written: a node's renewal is approved and signed in the answer to its creation, and what somebody approves
//! by hand (`kubectl certificate approve`) is signed with the approval. The rules are those of the signers' documentation.

use jiff::Timestamp;
use sampan_api::{FieldError, Status, meta};
use serde_json::{Value, json};

use super::Scope;
use crate::pki::{Requested, SigningRequest};
use crate::user::{NODE_PREFIX, NODES};

/// The identity of a kubelet, for its API.
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What a kubelet shows on its port.
const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The identity of anybody else.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn is_request(scope: &Scope<'_>) -> bool {
    let resource = scope.storage();
    (resource.group, resource.plural) == ("certificates.k8s.io", "certificatesigningrequests")
}

/// Writes down who asks. A node's request for what it is already is approved and signed.
///
/// # Errors
/// 422 for what is no request.
pub(super) fn on_create(scope: &Scope<'_>, object: &mut Value) -> Result<(), Status> {
    let user = &scope.context.user;
    let spec = &mut object["spec"];
    spec["username"] = json!(user.username);
    spec["groups"] = json!(user.groups);
    for (field, value) in [("uid", json!(user.uid)), ("extra", json!(user.extra))] {
        match value.as_str().is_some_and(str::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
        {
            true => drop(spec.as_object_mut().and_then(|spec| spec.remove(field))),
            false => spec[field] = value,
        }
    }
    let request = parse(scope, object)?;
    if is_own(&request, object) && check(&request, object).is_ok() {
        let message = "Auto approving kubelet certificate of the node that asks for it.";
        object["status"]["conditions"] = json!([condition("Approved", "AutoApproved", message)]);
        sign(scope, &request, object);
    }
    Ok(())
}

/// Signs what was approved.
///
/// # Errors
/// 422 for what is no request.
pub(super) fn on_update(scope: &Scope<'_>, object: &mut Value) -> Result<(), Status> {
    let has = |kind: &str| {
        meta::list(object, "/status/conditions").iter().any(|condition| condition["type"] == kind)
    };
    if scope.subresource != "approval" || !has("Approved") || has("Denied") || has("Failed") {
        return Ok(());
    }
    if object.pointer("/status/certificate").is_none() {
        let request = parse(scope, object)?;
        sign(scope, &request, object);
    }
    Ok(())
}

fn parse(scope: &Scope<'_>, object: &Value) -> Result<SigningRequest, Status> {
    let encoded = object["spec"]["request"].as_str().unwrap_or_default();
    SigningRequest::from_base64(encoded).map_err(|error| {
        let found = FieldError::invalid("spec.request", encoded, error.to_string());
        Status::invalid(scope.resource.group, scope.resource.kind, meta::name(object), &[found])
    })
}

/// Whether a node asks for what it is.
fn is_own(request: &SigningRequest, object: &Value) -> bool {
    let user = object["spec"]["username"].as_str().unwrap_or_default();
    user.starts_with(NODE_PREFIX) && request.asks().common_name == user
}

/// Whether the signer that is asked signs this; a word about why not. Signers of others are not ours to judge.
fn check(request: &SigningRequest, object: &Value) -> Result<(), &'static str> {
    let asked = request.asks();
    let node = asked.common_name.starts_with(NODE_PREFIX) && asked.organizations == [NODES];
    let usages: Vec<&str> = meta::list(object, "/spec/usages").iter().filter_map(Value::as_str).collect();
    let only = |purpose: &str| {
        let known = ["digital signature", "key encipherment", purpose];
        usages.contains(&purpose)
            && usages.contains(&known[0])
            && usages.iter().all(|usage| known.contains(usage))
    };
    match object["spec"]["signerName"].as_str().unwrap_or_default() {
        NODE_CLIENT | NODE_SERVING if !node => {
            Err("the subject's organization must be system:nodes and its common name begin with system:node:")
        }
        NODE_CLIENT if !asked.names.is_empty() => Err("it must have no subject alternative names"),
        NODE_CLIENT if !only("client auth") => Err("its usages must be those of a client"),
        NODE_SERVING if asked.names.is_empty() => Err("it must have subject alternative names"),
        NODE_SERVING if !only("server auth") => Err("its usages must be those of a server"),
        CLIENT if !only("client auth") => Err("its usages must be those of a client"),
        CLIENT if asked.organizations.iter().any(|group| group == "system:masters") => {
            Err("the group system:masters is not given away")
        }
        _ => Ok(()),
    }
}

/// Puts the certificate into the status, or why there is none. Requests to signers of others are left to them.
fn sign(scope: &Scope<'_>, request: &SigningRequest, object: &mut Value) {
    let requested = match object["spec"]["signerName"].as_str().unwrap_or_default() {
        NODE_CLIENT | CLIENT => Requested::Client,
        NODE_SERVING => Requested::Server,
        _ => return,
    };
    let seconds = object["spec"]["expirationSeconds"].as_u64();
    let directory = scope.server.config.pki.directory();
    let signed = match check(request, object) {
        Ok(()) => request.sign(directory, requested, seconds).map_err(|error| error.to_string()),
        Err(why) => Err(why.to_owned()),
    };
    match signed {
        Ok(certificate) => object["status"]["certificate"] = json!(certificate),
        Err(why) => {
            let failed = condition("Failed", "SignerValidationFailure", &why);
            if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
                conditions.push(failed);
            }
        }
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now, "lastTransitionTime": now})
}

//! SelfSubjectRulesReview: everything that the asking user may do in a namespace (`kubectl auth can-i --list`).

use sampan_api::Status;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::context::RequestContext;

pub(super) async fn review(
    server: &ApiServer,
    context: &RequestContext,
    object: &Value,
) -> Result<Value, Status> {
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    server.authorization.catch_up().await;
    let (rules, problems) = server.authorization.rules_for(&context.user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if !rule.resources.is_empty() {
            let mut rule = rule.clone();
            rule.non_resource_urls.clear();
            resources.push(serde_json::to_value(rule).unwrap_or_default());
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !problems.is_empty()});
    if !problems.is_empty() {
        status["evaluationError"] = problems.join(", ").into();
    }
    Ok(status)
}

//! Who may do what on the kubelet's port: the API server and cluster administrators by certificate, everybody
//! else by what the API server says about their token (TokenReview, SubjectAccessReview).

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::body::{Body, text};
use super::tls::User;
use crate::context::NodeContext;

/// Lets the request through, or says why not.
pub(super) async fn allow(
    ctx: &NodeContext,
    user: Option<&User>,
    request: &Request<Incoming>,
) -> Result<(), Response<Body>> {
    let by_token;
    let user = match user {
        Some(user) => user,
        None => {
            by_token = by_bearer_token(ctx, request).await;
            by_token.as_ref().ok_or_else(|| text(StatusCode::UNAUTHORIZED, "Unauthorized"))?
        }
    };
    if user.name == "system:kube-apiserver"
        || user
            .groups
            .iter()
            .any(|group| matches!(group.as_str(), "system:masters" | "system:kube-apiserver"))
    {
        return Ok(());
    }
    let verb = match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let subresource = subresource(request.uri().path());
    if is_allowed(ctx, user, verb, subresource).await {
        return Ok(());
    }
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])\n",
        user.name
    );
    Err(text(StatusCode::FORBIDDEN, message))
}

/// What a path belongs to in RBAC.
fn subresource(path: &str) -> &'static str {
    match path.split('/').nth(1).unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "healthz" => "healthz",
        "configz" => "configz",
        "pods" | "runningpods" => "pods",
        _ => "proxy",
    }
}

async fn by_bearer_token(ctx: &NodeContext, request: &Request<Incoming>) -> Option<User> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?.trim();
    let review = TokenReview {
        spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(ctx.config.client.clone());
    let status = reviews.create(&PostParams::default(), &review).await.ok()?.status?;
    if status.authenticated != Some(true) {
        return None;
    }
    let user = status.user?;
    Some(User { name: user.username?, groups: user.groups.unwrap_or_default() })
}

async fn is_allowed(ctx: &NodeContext, user: &User, verb: &str, subresource: &str) -> bool {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(ctx.config.node_name.clone()),
                version: Some("v1".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(ctx.config.client.clone());
    match reviews.create(&PostParams::default(), &review).await {
        Ok(answer) => answer.status.is_some_and(|status| status.allowed),
        Err(error) => {
            tracing::warn!(%error, "access review");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_upstreams_subresources() {
        for (path, expected) in [
            ("/stats/summary", "stats"),
            ("/metrics", "metrics"),
            ("/pods", "pods"),
            ("/exec/a/b/c", "proxy"),
            ("/containerLogs/a/b/c", "proxy"),
        ] {
            assert_eq!(subresource(path), expected);
        }
    }
}

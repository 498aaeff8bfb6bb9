//! Tokens of a pod's ServiceAccount, from the API's `token` subresource: for volumes and for credential plugins.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use crate::pod_ref;

/// A request that takes longer is given up; it is made again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A token of `account` that is bound to the pod and ends with it, for `audience` (the API server's own without one)
/// and so many seconds (as the API server likes without a number).
///
/// # Errors
/// The API server refuses or does not answer.
pub(crate) async fn request(
    client: &kube::Client,
    pod: &Pod,
    account: &str,
    audience: Option<&str>,
    seconds: Option<i64>,
) -> Result<TokenRequestStatus, String> {
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience.to_owned()]),
            expiration_seconds: seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), pod_ref::namespace(pod));
    let parameters = PostParams::default();
    let answer = accounts.create_subresource("token", account, &parameters, &body);
    let answer: TokenRequest = tokio::time::timeout(PATIENCE, answer)
        .await
        .map_err(|_| "the API server does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    answer.status.ok_or_else(|| "the TokenRequest was answered without a token".to_owned())
}

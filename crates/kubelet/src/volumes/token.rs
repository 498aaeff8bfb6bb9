//! Service account tokens for projected volumes: requested for the pod, renewed after 80 % of their life (ENV-50).

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;

use crate::context::NodeContext;
use crate::pod_ref;

const DEFAULT_SECONDS: i64 = 3_600;

#[derive(Debug)]
struct Token {
    text: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one pod, by volume and source.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<(String, usize), Token>);

impl Tokens {
    /// The token of a source, requested anew when it is due. As long as an old one is valid, a failing request
    /// does no harm.
    pub(super) async fn get(
        &mut self,
        ctx: &NodeContext,
        pod: &Pod,
        source: (&str, usize),
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let key = (source.0.to_owned(), source.1);
        let now = ctx.config.clock.now();
        if let Some(token) = self.0.get(&key).filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        match request(ctx, pod, projection, now).await {
            Ok(token) => {
                let text = token.text.clone();
                self.0.insert(key, token);
                Ok(text)
            }
            Err(error) => match self.0.get(&key).filter(|token| now < token.expires_at) {
                Some(token) => Ok(token.text.clone()),
                None => Err(format!("failed to fetch token: {error}")),
            },
        }
    }
}

async fn request(
    ctx: &NodeContext,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Token, String> {
    let account = pod_ref::spec(pod).service_account_name.as_deref().unwrap_or("default");
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: projection
                .audience
                .clone()
                .filter(|audience| !audience.is_empty())
                .map(|one| vec![one]),
            expiration_seconds: Some(projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.config.client.clone(), pod_ref::namespace(pod));
    let answer: TokenRequest = accounts
        .create_subresource("token", account, &PostParams::default(), &body)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status.ok_or("the answer has no status")?;
    let expires_at = status.expiration_timestamp.ok_or("the answer has no expiration time")?.0;
    let text = status.token.ok_or("the answer has no token")?;
    let life = expires_at.duration_since(now);
    let renew_at = now.checked_add(life.saturating_mul(4) / 5).unwrap_or(expires_at);
    Ok(Token { text, renew_at, expires_at })
}

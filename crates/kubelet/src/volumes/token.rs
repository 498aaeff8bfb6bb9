//! Service account tokens for projected volumes: requested for the pod, renewed after 80 % of their life or a day
//! (ENV-50).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};

use crate::context::NodeContext;
use crate::{pod_ref, token_request};

const DEFAULT_SECONDS: i64 = 3_600;

/// The oldest that a token gets in a volume, however long it is good for.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);

struct Token {
    text: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one pod, by volume and source.
#[derive(Default)]
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

    /// When the first of them has to be renewed.
    pub(super) fn next_renewal(&self) -> Option<Timestamp> {
        self.0.values().map(|token| token.renew_at).min()
    }
}

async fn request(
    ctx: &NodeContext,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Token, String> {
    let account = pod_ref::spec(pod).service_account_name.as_deref().unwrap_or("default");
    let audience = projection.audience.as_deref().filter(|audience| !audience.is_empty());
    let seconds = Some(projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS));
    let status = token_request::request(&ctx.config.client, pod, account, audience, seconds).await?;
    let expires_at = status.expiration_timestamp.ok_or("the answer has no expiration time")?.0;
    let text = status.token.ok_or("the answer has no token")?;
    Ok(Token { text, renew_at: renewal(now, expires_at), expires_at })
}

fn renewal(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.duration_since(now);
    now.checked_add((life.saturating_mul(4) / 5).min(OLDEST)).unwrap_or(expires_at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_50_a_token_is_renewed_after_four_fifths_of_its_life_or_a_day() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |expires: &str| renewal(now, expires.parse().unwrap()).to_string();
        assert_eq!(after("2026-01-01T00:10:00Z"), "2026-01-01T00:08:00Z");
        assert_eq!(after("2027-01-01T00:00:00Z"), "2026-01-02T00:00:00Z");
    }
}

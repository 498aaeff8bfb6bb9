//! One pull: the wait for a turn, then each credential until one is accepted (IMG-42 to IMG-45, IMG-64, IMG-66).

use std::time::Duration;

use sampan_cri::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use super::credentials::{Credential, Found};
use super::ensure::{PresentImage, present};
use super::failure::{PullFailure, Refusal};
use super::progress;
use super::rate_limit;
use crate::context::NodeContext;

/// What a pull brought.
pub(super) struct Pulled {
    pub(super) image: PresentImage,
    /// The credential that was accepted; `None` for an anonymous pull.
    pub(super) with: Option<Credential>,
    /// The pull itself.
    pub(super) pulling: Duration,
    /// With the wait for a turn.
    pub(super) in_all: Duration,
    /// Bytes, as the runtime says; 0 when it does not.
    pub(super) size: u64,
}

/// Pulls `spec`, which the pod's spec writes as `written`.
pub(super) async fn pull(
    ctx: &NodeContext,
    spec: &v1::ImageSpec,
    written: &str,
    repository: &str,
    found: &Found,
    sandbox_config: &v1::PodSandboxConfig,
    told: &watch::Sender<String>,
) -> Result<Pulled, PullFailure> {
    let asked = Instant::now();
    let registry = repository.split('/').next().unwrap_or_default();
    let slot = {
        let _waiting = ctx.metrics.images.waiting();
        tokio::select! {
            biased;
            slot = ctx.images.queue.slot(registry) => slot,
            never = progress::tell_waiting(written, told) => match never {},
        }
    };
    let _pulling = ctx.metrics.images.pulling();
    let began = Instant::now();
    let mut refusals = Vec::new();
    for credential in tries(&found.credentials) {
        if !ctx.images.rate_limit.try_take() {
            refusals.push(Refusal::of_ours(rate_limit::EXCEEDED));
            break;
        }
        let auth = credential.map(|credential| credential.login.auth_config());
        let pull = ctx.config.cri.pull_image(spec.clone(), auth, sandbox_config.clone());
        let result = tokio::select! {
            biased;
            result = pull => result,
            never = progress::tell(&*ctx.config.cri, &spec.image, written, told) => match never {},
        };
        match result {
            Ok(reference) => {
                let pulling = began.elapsed();
                drop(slot);
                let asked_for = v1::ImageSpec { image: reference.clone(), ..spec.clone() };
                let local = ctx.config.cri.image_status(asked_for).await.ok().flatten();
                let size = local.as_ref().map_or(0, |image| image.size);
                let image = local.map(present);
                let bare = || PresentImage { reference, uid: None, username: String::new(), pulled: true };
                let image = image.map_or_else(bare, |image| PresentImage { pulled: true, ..image });
                let with = credential.cloned();
                return Ok(Pulled { image, with, pulling, in_all: asked.elapsed(), size });
            }
            Err(status) => refusals.push(Refusal::of_runtime(&status, credential, repository, found)),
        }
    }
    Err(PullFailure { refusals })
}

/// What is tried: each login once, or nothing at all when there is none.
fn tries(credentials: &[Credential]) -> Vec<Option<&Credential>> {
    let mut tries: Vec<Option<&Credential>> = Vec::new();
    for credential in credentials {
        if !tries.iter().flatten().any(|known| known.login == credential.login) {
            tries.push(Some(credential));
        }
    }
    if tries.is_empty() {
        tries.push(None);
    }
    tries
}

//! One pull: the wait for a turn, then each credential until one is accepted (IMG-42 to IMG-45, IMG-64, IMG-66).

use std::time::Duration;

use sampan_cri::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use super::credentials::{Credential, Found, MirrorCredential};
use super::ensure::{PresentImage, present};
use super::failure::{PullFailure, Refusal};
use super::progress;
use super::rate_limit;
use crate::context::NodeContext;

/// What a pull brought.
pub(super) struct Pulled {
    pub(super) image: PresentImage,
    /// The credential that was accepted; `None` for an anonymous pull. Where a mirror may have been shown one of
    /// the pod, it is that one: nobody says who gave the image, and a record must not open what may be private.
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
    // One for the pull, however many credentials it takes.
    if !ctx.images.rate_limit.try_take() {
        return Err(PullFailure { refusals: vec![Refusal::of_ours(rate_limit::EXCEEDED)] });
    }
    let mut refusals = Vec::new();
    for credential in tries(&found.credentials) {
        let auth = credential.map(|credential| credential.login.auth_config());
        let mirrors = found.mirrors.iter().map(MirrorCredential::login).collect();
        let pull = ctx.config.cri.pull_image(spec.clone(), auth, mirrors, sandbox_config.clone());
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
                let with = accepted(credential, found).cloned();
                return Ok(Pulled { image, with, pulling, in_all: asked.elapsed(), size });
            }
            Err(status) => refusals.push(Refusal::of_runtime(&status, credential, repository, found)),
        }
    }
    Err(PullFailure { refusals })
}

fn accepted<'a>(credential: Option<&'a Credential>, found: &'a Found) -> Option<&'a Credential> {
    let of_the_pod = |credential: &&Credential| credential.source.is_of_the_pod();
    let shown = found.mirrors.iter().map(|mirror| &mirror.credential).find(of_the_pod);
    credential.filter(of_the_pod).or(shown).or(credential)
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

//! The secrets in streaming URLs. A URL is all that protects a shell in a container, so its token is random,
//! valid once and for a minute, and the number of open ones is bounded.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::v1;

/// A minute, as in the kubelet's own streaming library.
const LIFETIME: Duration = Duration::from_secs(60);
/// Above this the oldest request is dropped.
const MAX_PENDING: usize = 1000;
/// 192 bits.
const TOKEN_BYTES: usize = 24;

/// What a token stands for.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    /// `Exec` was called.
    Exec(v1::ExecRequest),
    /// `Attach` was called.
    Attach(v1::AttachRequest),
    /// `PortForward` was called.
    PortForward(v1::PortForwardRequest),
}

/// The requests whose URLs have not been used yet.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pending: Mutex<HashMap<String, (Instant, Pending)>>,
}

impl Tokens {
    /// Remembers a request and gives its token.
    pub(super) fn insert(&self, request: Pending) -> std::io::Result<String> {
        let token = random_token()?;
        let mut pending = self.pending.lock().expect("no panic under this lock");
        let now = Instant::now();
        pending.retain(|_, (created, _)| now.duration_since(*created) < LIFETIME);
        if pending.len() >= MAX_PENDING
            && let Some(oldest) =
                pending.iter().min_by_key(|(_, (created, _))| *created).map(|(token, _)| token.clone())
        {
            pending.remove(&oldest);
        }
        pending.insert(token.clone(), (now, request));
        Ok(token)
    }

    /// The request of a token that has not been used and has not expired.
    pub(super) fn take(&self, token: &str) -> Option<Pending> {
        let mut pending = self.pending.lock().expect("no panic under this lock");
        let (created, request) = pending.remove(token)?;
        (created.elapsed() < LIFETIME).then_some(request)
    }
}

fn random_token() -> std::io::Result<String> {
    use base64::Engine as _;
    let mut bytes = [0u8; TOKEN_BYTES];
    let mut urandom = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut urandom, &mut bytes)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Pending {
        Pending::Exec(v1::ExecRequest::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_works_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let token = tokens.insert(request()).expect("urandom");
        assert!(tokens.take(&token).is_some());
        assert!(tokens.take(&token).is_none());
        let token = tokens.insert(request()).expect("urandom");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(tokens.take(&token).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn open_tokens_are_bounded() {
        let tokens = Tokens::default();
        let first = tokens.insert(request()).expect("urandom");
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..MAX_PENDING {
            tokens.insert(request()).expect("urandom");
        }
        assert!(tokens.take(&first).is_none());
    }
}

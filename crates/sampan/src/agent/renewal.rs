//! The agent's certificates are asked for again when 70 to 90 % of their life is over, as upstream's kubelet does (a
//! CertificateSigningRequest that the API server approves and signs), and used at once. They are kept beside the agent's
//! other keys; of those and the kubeconfig's the one that lasts longer is used.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rand::Rng;
use sampan_apiserver::{CertifiedKeyPem, pki};

/// How long a look at the clock is good for: it may be set.
const LOOK: Duration = Duration::from_secs(3600);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How often, and how often at most, a request is looked at that somebody has to approve.
const PAUSE: Duration = Duration::from_secs(5);
const LOOKS: u32 = 180;

/// Which certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Who the node is.
    Client,
    /// What the kubelet shows on its port.
    Serving,
}

impl Purpose {
    fn file(self, directory: &Path) -> PathBuf {
        directory.join(match self {
            Self::Client => "agent-client.pem",
            Self::Serving => "agent-serving.pem",
        })
    }

    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Client => "client auth",
            Self::Serving => "server auth",
        }
    }
}

/// The renewed certificate when there is one for this node that lasts longer than `given`, else that.
pub(super) fn latest(purpose: Purpose, directory: &Path, given: CertifiedKeyPem) -> CertifiedKeyPem {
    let renewed = pki::read_pair(&purpose.file(directory)).ok().flatten();
    let ends = |pair: &CertifiedKeyPem| pki::validity(&pair.certificate).map(|life| life.end);
    match renewed {
        Some(renewed)
            if pki::node_of(&renewed.certificate) == pki::node_of(&given.certificate)
                && ends(&renewed) > ends(&given) =>
        {
            renewed
        }
        _ => given,
    }
}

/// Renews one certificate for as long as it is not aborted; `taken` gets each new one.
pub(super) async fn keep(
    purpose: Purpose,
    mut current: CertifiedKeyPem,
    directory: PathBuf,
    client: Client,
    taken: impl Fn(&CertifiedKeyPem) -> Result<()>,
) {
    loop {
        let share = rand::rng().random_range(0.7..0.9);
        while let Some(wait) = time_left(&current, share, SystemTime::now()) {
            tokio::time::sleep(wait.min(LOOK)).await;
        }
        let renewed = renew(purpose, &current, &directory, &client).await;
        match renewed.and_then(|renewed| taken(&renewed).map(|()| renewed)) {
            Ok(renewed) => {
                tracing::info!(?purpose, "certificate renewed");
                current = renewed;
            }
            Err(error) => {
                tracing::warn!(?purpose, "certificate not renewed yet: {error:#}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// How long until this share of the certificate's life is over; `None` when it is.
fn time_left(pair: &CertifiedKeyPem, share: f64, now: SystemTime) -> Option<Duration> {
    let life = pki::validity(&pair.certificate)?;
    let whole = life.end.duration_since(life.start).unwrap_or_default();
    (life.start + whole.mul_f64(share)).duration_since(now).ok().filter(|left| !left.is_zero())
}

/// Asks for another certificate of the same names, with a new key.
async fn renew(
    purpose: Purpose,
    current: &CertifiedKeyPem,
    directory: &Path,
    client: &Client,
) -> Result<CertifiedKeyPem> {
    let node = pki::node_of(&current.certificate).context("the certificate in use is no node's")?;
    let names = match purpose {
        Purpose::Client => Vec::new(),
        Purpose::Serving => pki::names(&current.certificate),
    };
    let (key, request) = pki::make_request(&format!("system:node:{node}"), "system:nodes", names)?;
    let usages = ["digital signature", purpose.usage()].map(str::to_owned);
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(usages.to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let asking = "asking for a certificate";
    let mut asked = requests.create(&PostParams::default(), &wanted).await.context(asking)?;
    let name = asked.metadata.name.clone().unwrap_or_default();
    for _ in 0..LOOKS {
        let status = asked.status.unwrap_or_default();
        if let Some(ByteString(certificate)) = status.certificate {
            let certificate = String::from_utf8(certificate).context("the new certificate is not PEM")?;
            let pair = CertifiedKeyPem { certificate, key };
            pki::write_pair(&purpose.file(directory), &pair)?;
            return Ok(pair);
        }
        let refused =
            status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
        if let Some(refused) = refused {
            bail!("request {name} was refused: {}", refused.message.as_deref().unwrap_or_default());
        }
        tokio::time::sleep(PAUSE).await;
        asked = requests.get(&name).await.context(asking)?;
    }
    bail!("nobody approves request {name} (kubectl certificate approve {name})")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let pair = pki::self_signed(dir.path(), "n", "127.0.0.1".parse().unwrap()).unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let left = |share: f64, at: SystemTime| {
            time_left(&pair, share, at).map(|left| left.as_secs() / day.as_secs())
        };
        assert_eq!(left(0.7, now), Some(255));
        assert_eq!(left(0.9, now), Some(328));
        assert_eq!(left(0.7, now + 256 * day), None);
        assert_eq!(left(0.9, now + 400 * day), None);
    }

    #[test]
    fn of_the_renewed_and_the_given_the_one_that_lasts_longer_is_used() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pair =
            |dir: &Path, node: &str| pki::self_signed(dir, node, "127.0.0.1".parse().unwrap()).unwrap();
        let given = pair(dir.path(), "n");
        let used = |given: &CertifiedKeyPem| latest(Purpose::Client, dir.path(), given.clone()).key;
        assert_eq!(used(&given), given.key, "there is no other");
        pki::write_pair(&Purpose::Client.file(dir.path()), &pair(other.path(), "m")).unwrap();
        assert_eq!(used(&given), given.key, "another node's");
        std::fs::write(Purpose::Client.file(dir.path()), "damaged").unwrap();
        assert_eq!(used(&given), given.key);
    }
}

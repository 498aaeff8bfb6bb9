//! Who may use an image that is already on the node (KEP-2535, IMG-76 to IMG-82).
//!
//! A private image that one pod pulled with its Secret is not free for every other pod just because its layers
//! are here. Each pull leaves a record of what it was pulled with; a later pod is let in when it has the same
//! Secret or the same credential, else it must pull, which the registry allows or not.

mod policy;
mod records;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

pub(crate) use policy::Allowlist;
use policy::Enforcer;
pub(crate) use records::hex;
use records::{Credentials, PulledRecord, Records, SecretRecord, ServiceAccountRecord};

use super::config::ImageConfig;
use super::credentials::{Credential, Source};
use crate::clock::Clock;
use crate::cri::ContainerRuntime;
use crate::image_name;

/// What is known about an image before any credential was looked at.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The pod may use it.
    Accessible,
    /// It depends on the pod's credentials: ask [`ImageAccess::admits`].
    DependsOnCredentials(Proof),
    /// Only a pull can tell.
    MustPull,
}

/// What a pod must show, one of these.
#[derive(Debug)]
pub(crate) struct Proof {
    image_ref: String,
    repository: String,
    credentials: Credentials,
}

/// Decides, and keeps the records.
#[derive(Debug)]
pub(crate) struct ImageAccess {
    enforcer: Enforcer,
    /// The records on disk; one at a time reads, decides and writes.
    records: Mutex<Records>,
    clock: Clock,
}

impl ImageAccess {
    /// Records are kept in `<root>/image_manager`, as upstream's kubelet does.
    pub(crate) fn new(root: &Path, config: &ImageConfig, clock: Clock) -> Self {
        let enforcer = Enforcer::new(
            config.image_pull_credentials_verification_policy,
            &config.preloaded_images_verification_allowlist,
        );
        Self { enforcer, records: Mutex::new(Records::new(&root.join("image_manager"))), clock }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an interrupted kubelet left: an image whose pull began under its eyes is no preloaded one. It gets a
    /// record without credentials, so everybody has to prove access (IMG-81).
    pub(crate) async fn recover(&self, cri: &dyn ContainerRuntime) {
        let intents = self.records().intents();
        for image in intents {
            let spec = sampan_cri::v1::ImageSpec { image: image.clone(), ..Default::default() };
            match cri.image_status(spec).await {
                Ok(Some(found)) => self.note(&image, &found.id, &Credentials::default()),
                Ok(None) => {}
                // Kept for the next start.
                Err(_) => continue,
            }
            self.records().remove_intent(&image);
        }
    }

    /// What can be said without looking at credentials. `requested` is the image as the spec writes it.
    pub(crate) fn judge(&self, requested: &str, image_ref: &str) -> Verdict {
        if self.enforcer.lets_everybody() {
            return Verdict::Accessible;
        }
        let record = match self.records().pulled(image_ref) {
            Ok(record) => record,
            // A record that cannot be read proves nothing.
            Err(error) => {
                tracing::warn!(error, image = requested, "record of a pulled image");
                return Verdict::MustPull;
            }
        };
        let pulled_here = record.is_some() || self.records().is_intended(requested);
        if !self.enforcer.must_verify(requested, pulled_here) {
            return Verdict::Accessible;
        }
        let Some(record) = record else { return Verdict::MustPull };
        let Ok(name) = image_name::parse(requested) else { return Verdict::MustPull };
        match record.credential_mapping.get(&name.repository) {
            Some(credentials) if credentials.node_pods_accessible => Verdict::Accessible,
            Some(credentials) if !credentials.is_empty() => Verdict::DependsOnCredentials(Proof {
                image_ref: image_ref.to_owned(),
                repository: name.repository,
                credentials: credentials.clone(),
            }),
            _ => Verdict::MustPull,
        }
    }

    /// Whether one of these credentials is a proof (IMG-80). What is new about it is recorded.
    pub(crate) fn admits<'a>(
        &self,
        proof: &Proof,
        credentials: impl IntoIterator<Item = &'a Credential>,
    ) -> bool {
        for credential in credentials {
            match &credential.source {
                Source::Secret { uid, namespace, name } => {
                    let shown = SecretRecord {
                        uid: uid.clone(),
                        namespace: namespace.clone(),
                        name: name.clone(),
                        credential_hash: credential.login.hash(),
                    };
                    let known = &proof.credentials.kubernetes_secrets;
                    let same_place = known.iter().any(|secret| secret.is_at(&shown));
                    let same_login =
                        known.iter().any(|secret| secret.credential_hash == shown.credential_hash);
                    if same_place || same_login {
                        if !known.contains(&shown) {
                            let new = Credentials { kubernetes_secrets: vec![shown], ..Default::default() };
                            self.add(&proof.image_ref, &proof.repository, &new);
                        }
                        return true;
                    }
                }
                Source::Plugin { service_account: Some(account), .. } => {
                    let shown = ServiceAccountRecord {
                        uid: account.uid.clone(),
                        namespace: account.namespace.clone(),
                        name: account.name.clone(),
                    };
                    if proof.credentials.kubernetes_service_accounts.contains(&shown) {
                        return true;
                    }
                }
                Source::NodeFile { .. } | Source::Helper { .. } | Source::Plugin { .. } => {}
            }
        }
        false
    }

    /// A pull begins: should the kubelet die in it, the image will not count as preloaded.
    ///
    /// # Errors
    /// When that cannot be written: then nothing may be pulled.
    pub(crate) fn intend(&self, image: &str) -> Result<(), String> {
        self.records().write_intent(image)
    }

    /// The pull ended; `with` is the credential that was accepted, `None` for none at all.
    pub(crate) fn pulled(&self, image: &str, image_ref: &str, with: Option<&Credential>) {
        let mut credentials = Credentials::default();
        match with.map(|credential| (&credential.source, &credential.login)) {
            Some((Source::Secret { uid, namespace, name }, login)) => {
                credentials.kubernetes_secrets.push(SecretRecord {
                    uid: uid.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    credential_hash: login.hash(),
                });
            }
            Some((Source::Plugin { service_account: Some(account), .. }, _)) => {
                credentials.kubernetes_service_accounts.push(ServiceAccountRecord {
                    uid: account.uid.clone(),
                    namespace: account.namespace.clone(),
                    name: account.name.clone(),
                });
            }
            // Without credentials, or with the node's own: every pod of the node could do the same (IMG-79).
            _ => credentials.node_pods_accessible = true,
        }
        self.note(image, image_ref, &credentials);
        self.records().remove_intent(image);
    }

    /// The pull failed, or was given up.
    pub(crate) fn failed(&self, image: &str) {
        self.records().remove_intent(image);
    }

    /// Forgets images that are no longer here, unless their record is younger than `since` (a pull may be
    /// under way).
    pub(crate) fn prune(&self, present: &[String], since: Timestamp) {
        self.records().prune(present, since);
    }

    fn note(&self, image: &str, image_ref: &str, credentials: &Credentials) {
        match image_name::parse(image) {
            Ok(name) => self.add(image_ref, &name.repository, credentials),
            Err(error) => tracing::warn!(error, "record of a pulled image"),
        }
    }

    fn add(&self, image_ref: &str, repository: &str, credentials: &Credentials) {
        let records = self.records();
        let mut record =
            records.pulled(image_ref).ok().flatten().unwrap_or_else(|| PulledRecord::of(image_ref));
        if record.merge(repository, credentials) {
            record.last_updated_time = self.clock.now_seconds();
            if let Err(error) = records.write_pulled(&record) {
                tracing::warn!(error, image_ref, "record of a pulled image");
            }
        }
    }
}

#[cfg(test)]
mod tests;

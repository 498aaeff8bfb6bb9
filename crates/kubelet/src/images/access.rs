//! Who may use an image that is already on the node (KEP-2535, IMG-76 to IMG-82).
//!
//! A private image that one pod pulled with its Secret is not free for every other pod just because its layers
//! are here. Each pull leaves a record of what it was pulled with; a later pod is let in when it has the same
//! Secret or the same credential, else it must pull, which the registry allows or not.

mod policy;
mod records;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sampan_cri::v1;

pub(crate) use policy::Allowlist;
use policy::Enforcer;
pub(crate) use records::hex;
use records::{Credentials, PulledRecord, Records, SecretRecord, ServiceAccountRecord, Unsettled};

use super::config::ImageConfig;
use super::credentials::{Credential, Source};
use crate::clock::Clock;
use crate::cri::ContainerRuntime;
use crate::image_name;

/// A runtime that was told that nobody waits for a pull any more has finished or dropped it by then.
const LET_GO: Duration = Duration::from_secs(60);

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

    /// Settles what pulls left whose end nobody saw, or whose record could not be written: an image whose pull began
    /// under our eyes is no preloaded one. It gets a record without credentials, so everybody has to prove access
    /// (IMG-81). Pulls of an earlier kubelet are settled at once, those that were given up after a while.
    pub(crate) async fn settle(&self, cri: &dyn ContainerRuntime) {
        let now = self.clock.now();
        let unsettled = self.records().unsettled(now.checked_sub(LET_GO).unwrap_or(now));
        if unsettled.is_empty() {
            return;
        }
        let handlers = handlers(cri).await;
        for (image, unsettled) in unsettled {
            let noted = match &handlers {
                Ok(handlers) => self.note_found(cri, handlers, &image, unsettled.before.as_ref()).await,
                Err(error) => Err(error.clone()),
            };
            match noted {
                Ok(()) => self.records().settled(&image, &unsettled),
                Err(error) => tracing::warn!(error, image, "a pull without a record; it stays on the books"),
            }
        }
    }

    /// Gives what the name means to any handler a record without credentials, unless it is what was here `before`: a
    /// handler of another platform has an image of its own by that name (KEP-4216).
    async fn note_found(
        &self,
        cri: &dyn ContainerRuntime,
        handlers: &[String],
        image: &str,
        before: Option<&String>,
    ) -> Result<(), String> {
        for handler in handlers {
            let spec = v1::ImageSpec {
                image: image.to_owned(),
                runtime_handler: handler.clone(),
                ..Default::default()
            };
            let found = cri.image_status(spec).await.map_err(|status| status.message().to_owned())?;
            if let Some(found) = found.filter(|found| before != Some(&found.id)) {
                self.note(image, &found.id, &Credentials::default())?;
            }
        }
        Ok(())
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
        let pulled_here = record.is_some() || self.records().is_intended(requested, image_ref);
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
                            if let Err(error) = self.add(&proof.image_ref, &proof.repository, &new) {
                                tracing::warn!(error, image = proof.image_ref, "record of a pulled image");
                            }
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

    /// The pull ended; `with` is the credential that was accepted, `None` for none at all. Without a record the image
    /// would be everybody's: when that cannot be written, as on a disk that the pull has filled, the pull stays on
    /// the books instead.
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
        match self.note(image, image_ref, &credentials) {
            Ok(()) => self.records().remove_intent(image),
            Err(error) => {
                tracing::warn!(error, image, "record of a pulled image");
                self.given_up(image, None);
            }
        }
    }

    /// The pull failed: it has brought nothing.
    pub(crate) fn failed(&self, image: &str) {
        self.records().remove_intent(image);
    }

    /// Nobody waits for the pull's end any more; the image may come all the same. `before` is the image of that name
    /// that was here when it began.
    pub(crate) fn given_up(&self, image: &str, before: Option<String>) {
        let since = self.clock.now();
        self.records().keep_intent(image, Unsettled { since, before });
    }

    /// Forgets images that are no longer here, unless their record is younger than `since` (a pull may be
    /// under way).
    pub(crate) fn prune(&self, present: &[String], since: Timestamp) {
        self.records().prune(present, since);
    }

    fn note(&self, image: &str, image_ref: &str, credentials: &Credentials) -> Result<(), String> {
        let name = image_name::parse(image)?;
        self.add(image_ref, &name.repository, credentials)
    }

    fn add(&self, image_ref: &str, repository: &str, credentials: &Credentials) -> Result<(), String> {
        let records = self.records();
        let mut record =
            records.pulled(image_ref).ok().flatten().unwrap_or_else(|| PulledRecord::of(image_ref));
        if record.merge(repository, credentials) {
            record.last_updated_time = self.clock.now_seconds();
            records.write_pulled(&record)?;
        }
        Ok(())
    }
}

/// The default handler and all others.
async fn handlers(cri: &dyn ContainerRuntime) -> Result<Vec<String>, String> {
    let status = cri.status().await.map_err(|status| status.message().to_owned())?;
    let named = status.runtime_handlers.into_iter().map(|handler| handler.name);
    Ok(std::iter::once(String::new()).chain(named.filter(|name| !name.is_empty())).collect())
}

#[cfg(test)]
mod tests;

//! The records on disk: `pulling/` while a pull runs, `pulled/` for what it brought, in upstream's format, so
//! that they survive restarts of either kubelet (IMG-81). No credential is in them, only hashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{read, write};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Secrets remembered per image and repository; more would only make the file grow.
const MAX_SECRETS: usize = 100;

/// `ImagePulledRecord`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PulledRecord {
    kind: String,
    api_version: String,
    pub(super) last_updated_time: Timestamp,
    /// The image's id in the runtime.
    pub(super) image_ref: String,
    /// By repository, without tag and digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) credential_mapping: BTreeMap<String, Credentials>,
}

/// `ImagePullCredentials`: any of these is a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Credentials {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kubernetes_secrets: Vec<SecretRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kubernetes_service_accounts: Vec<ServiceAccountRecord>,
    /// Every pod of the node may use the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) node_pods_accessible: bool,
}

/// `ImagePullSecret`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SecretRecord {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) credential_hash: String,
}

/// `ImagePullServiceAccount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceAccountRecord {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// `ImagePullIntent`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PullIntent {
    kind: String,
    api_version: String,
    image: String,
}

impl SecretRecord {
    /// Whether both are the same Secret, whatever is in it.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

impl Credentials {
    pub(super) fn is_empty(&self) -> bool {
        self.kubernetes_secrets.is_empty()
            && self.kubernetes_service_accounts.is_empty()
            && !self.node_pods_accessible
    }
}

impl PulledRecord {
    pub(super) fn of(image_ref: &str) -> Self {
        Self {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: Timestamp::UNIX_EPOCH,
            image_ref: image_ref.to_owned(),
            credential_mapping: BTreeMap::new(),
        }
    }

    /// Takes in new credentials; whether the record has to be written.
    pub(super) fn merge(&mut self, repository: &str, new: &Credentials) -> bool {
        let Some(known) = self.credential_mapping.get_mut(repository) else {
            self.credential_mapping.insert(repository.to_owned(), new.clone());
            return true;
        };
        let before = known.clone();
        if known.node_pods_accessible {
            return false;
        }
        if new.node_pods_accessible {
            // Everybody's: nothing else matters any more.
            *known = Credentials { node_pods_accessible: true, ..Default::default() };
            return true;
        }
        for secret in &new.kubernetes_secrets {
            known.kubernetes_secrets.retain(|known| !known.is_at(secret));
            known.kubernetes_secrets.push(secret.clone());
        }
        let excess = known.kubernetes_secrets.len().saturating_sub(MAX_SECRETS);
        known.kubernetes_secrets.drain(..excess);
        for account in &new.kubernetes_service_accounts {
            if !known.kubernetes_service_accounts.contains(account) {
                known.kubernetes_service_accounts.push(account.clone());
            }
        }
        *known != before
    }
}

/// The two directories.
#[derive(Debug)]
pub(super) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
    /// Pulls under way by image: two pods may pull the same one.
    intents: BTreeMap<String, usize>,
    /// Images whose intent stays when no pull is under way, until it is known what became of it.
    unsettled: BTreeMap<String, Unsettled>,
}

/// A pull whose end nobody saw, or of which there is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsettled {
    /// When it was given up.
    pub(super) since: Timestamp,
    /// The image that was there already, which this pull has not brought.
    pub(super) before: Option<String>,
}

impl Records {
    pub(super) fn new(dir: &Path) -> Self {
        let pulling = dir.join("pulling");
        // Images whose pull was under way when the last kubelet ended.
        let left = entries(&pulling).into_iter().filter_map(|path| read::<PullIntent>(&path).ok().flatten());
        let long_ago = Unsettled { since: Timestamp::UNIX_EPOCH, before: None };
        let unsettled = left.map(|intent| (intent.image, long_ago.clone())).collect();
        Self { pulling, pulled: dir.join("pulled"), intents: BTreeMap::new(), unsettled }
    }

    /// Whether a pull may have brought `image_ref` as `image` of which there is no record.
    pub(super) fn is_intended(&self, image: &str, image_ref: &str) -> bool {
        if self.intents.contains_key(image) {
            return true;
        }
        match self.unsettled.get(image) {
            Some(unsettled) => unsettled.before.as_deref() != Some(image_ref),
            None => self.pulling.join(file_name(image)).exists(),
        }
    }

    /// What was given up until then and is not being pulled again.
    pub(super) fn unsettled(&self, until: Timestamp) -> Vec<(String, Unsettled)> {
        let is_due = |(image, unsettled): &(&String, &Unsettled)| {
            unsettled.since <= until && !self.intents.contains_key(*image)
        };
        let due = self.unsettled.iter().filter(is_due);
        due.map(|(image, unsettled)| (image.clone(), unsettled.clone())).collect()
    }

    /// It is known what became of that pull.
    pub(super) fn settled(&mut self, image: &str, known: &Unsettled) {
        // Another one may have been given up meanwhile.
        if self.unsettled.get(image) == Some(known) {
            self.unsettled.remove(image);
            self.forget_intent(image);
        }
    }

    pub(super) fn write_intent(&mut self, image: &str) -> Result<(), String> {
        let intent = PullIntent {
            kind: "ImagePullIntent".to_owned(),
            api_version: API_VERSION.to_owned(),
            image: image.to_owned(),
        };
        write(&self.pulling.join(file_name(image)), &intent)?;
        *self.intents.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    pub(super) fn remove_intent(&mut self, image: &str) {
        self.end_pull(image);
        self.forget_intent(image);
    }

    /// The pull is over, but its intent stays until it is settled.
    pub(super) fn keep_intent(&mut self, image: &str, new: Unsettled) {
        self.end_pull(image);
        let unsettled = self.unsettled.entry(image.to_owned()).or_insert_with(|| new.clone());
        unsettled.since = new.since;
        if new.before.is_none() {
            unsettled.before = None;
        }
    }

    fn end_pull(&mut self, image: &str) {
        if let Some(count) = self.intents.get_mut(image) {
            *count -= 1;
            if *count == 0 {
                self.intents.remove(image);
            }
        }
    }

    fn forget_intent(&self, image: &str) {
        if !self.intents.contains_key(image) && !self.unsettled.contains_key(image) {
            let _ = fs::remove_file(self.pulling.join(file_name(image)));
        }
    }

    pub(super) fn pulled(&self, image_ref: &str) -> Result<Option<PulledRecord>, String> {
        read(&self.pulled.join(file_name(image_ref)))
    }

    pub(super) fn write_pulled(&self, record: &PulledRecord) -> Result<(), String> {
        write(&self.pulled.join(file_name(&record.image_ref)), record)
    }

    pub(super) fn prune(&self, present: &[String], since: Timestamp) {
        for path in entries(&self.pulled) {
            let Ok(Some(record)) = read::<PulledRecord>(&path) else { continue };
            // Records have whole seconds: one written after `since` must not seem older.
            if record.last_updated_time.as_second() < since.as_second()
                && !present.contains(&record.image_ref)
            {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// `sha256-<hash of the key>`.
fn file_name(key: &str) -> String {
    format!("sha256-{}", hex(&Sha256::digest(key.as_bytes())))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    // What a crash left half written has another beginning.
    entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sha256-")))
        .collect()
}

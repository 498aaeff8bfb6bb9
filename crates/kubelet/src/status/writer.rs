//! Writes pod statuses to the API: the newest one per pod, only when it differs from what the API has, again
//! and again until it is there. Workers hand a status over and go on; a slow API never delays a pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tokio::time::Instant;

use super::patch::status_patch;
use crate::pod_ref;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// One pod's status on its way to the API.
///
/// A slot is *clean* (`desired` = `base`), *dirty* (they differ, a task writes), or *gone* (the API has no such
/// pod any more: nothing is written again).
struct Slot {
    namespace: String,
    name: String,
    desired: PodStatus,
    /// What the API has, as far as known.
    base: PodStatus,
    /// The resource version that `base` came with: an older watch event must not replace a newer answer.
    base_version: u64,
    writing: bool,
    gone: bool,
    /// The UID of the API's object: the pod's own, or its mirror's; none while a static pod has no mirror, so
    /// that nothing can be written.
    object: Option<String>,
    /// Tells waiters that the slot became clean or gone.
    settled: watch::Sender<bool>,
}

/// Hands statuses to the API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    client: kube::Client,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
    /// Seconds from a status being known until the API has it.
    seconds: Histogram,
}

impl StatusWriter {
    pub(crate) fn new(client: kube::Client, seconds: Histogram) -> Self {
        Self { client, slots: Arc::default(), seconds }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what the API has: called for every pod that the watch delivers.
    pub(crate) fn observe(&self, pod: &Pod) {
        let version = resource_version(pod);
        let base = pod.status.clone().unwrap_or_default();
        let mut slots = self.lock();
        let uid = pod_ref::uid(pod).to_owned();
        match slots.get_mut(&uid) {
            Some(slot) => {
                if version > slot.base_version {
                    slot.base = base;
                    slot.base_version = version;
                    self.write_if_needed(&uid, slot);
                }
            }
            None => {
                let slot = Slot {
                    namespace: pod_ref::namespace(pod).to_owned(),
                    name: pod_ref::name(pod).to_owned(),
                    desired: base.clone(),
                    base,
                    base_version: version,
                    writing: false,
                    gone: false,
                    object: Some(uid.clone()),
                    settled: watch::Sender::new(true),
                };
                slots.insert(uid, slot);
            }
        }
    }

    /// A static pod: its status is kept, and written once there is a mirror.
    pub(crate) fn begin(&self, pod: &Pod) {
        let slot = Slot {
            namespace: pod_ref::namespace(pod).to_owned(),
            name: pod_ref::name(pod).to_owned(),
            desired: PodStatus::default(),
            base: PodStatus::default(),
            base_version: 0,
            writing: false,
            gone: false,
            object: None,
            settled: watch::Sender::new(true),
        };
        self.lock().entry(pod_ref::uid(pod).to_owned()).or_insert(slot);
    }

    /// The API has this picture of the static pod `uid`.
    pub(crate) fn observe_mirror(&self, uid: &str, mirror: &Pod) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(uid) else { return };
        let version = resource_version(mirror);
        if slot.object.as_deref() != Some(pod_ref::uid(mirror)) || version > slot.base_version {
            slot.object = Some(pod_ref::uid(mirror).to_owned());
            slot.base = mirror.status.clone().unwrap_or_default();
            slot.base_version = version;
            self.write_if_needed(uid, slot);
        }
    }

    /// The newest status of a pod, written or not.
    pub(crate) fn current(&self, uid: &str) -> Option<PodStatus> {
        self.lock().get(uid).map(|slot| slot.desired.clone())
    }

    /// Foreign conditions as the API has them, over the newest status.
    pub(crate) fn merged(&self, uid: &str) -> PodStatus {
        let slots = self.lock();
        let Some(slot) = slots.get(uid) else { return PodStatus::default() };
        let mut status = slot.desired.clone();
        let own = super::conditions::OWNED;
        let mut conditions = status.conditions.take().unwrap_or_default();
        conditions.retain(|condition| own.contains(&condition.type_.as_str()));
        conditions.extend(
            slot.base.conditions.iter().flatten().filter(|c| !own.contains(&c.type_.as_str())).cloned(),
        );
        status.conditions = Some(conditions);
        status
    }

    /// Makes `status` the one that the API shall have.
    pub(crate) fn set(&self, uid: &str, status: PodStatus) {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(uid)
            && slot.desired != status
        {
            slot.desired = status;
            self.write_if_needed(uid, slot);
        }
    }

    /// Waits until the API has the newest status, or no longer has the pod.
    pub(crate) async fn settled(&self, uid: &str) {
        let receiver = self.lock().get(uid).map(|slot| slot.settled.subscribe());
        if let Some(mut receiver) = receiver {
            let _ = receiver.wait_for(|settled| *settled).await;
        }
    }

    /// What was written to is no more: the pod, or only its picture.
    fn object_gone(&self, uid: &str) {
        let mut slots = self.lock();
        match slots.get_mut(uid) {
            Some(slot) if slot.object.as_deref() != Some(uid) => slot.object = None,
            _ => {
                drop(slots);
                self.gone(uid);
            }
        }
    }

    /// The API no longer has the pod.
    pub(crate) fn gone(&self, uid: &str) {
        if let Some(slot) = self.lock().get_mut(uid) {
            slot.gone = true;
            slot.settled.send_replace(true);
        }
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, uid: &str) {
        if let Some(slot) = self.lock().remove(uid) {
            slot.settled.send_replace(true);
        }
    }

    fn write_if_needed(&self, uid: &str, slot: &mut Slot) {
        let Some(object) = &slot.object else { return };
        if slot.gone || slot.writing || status_patch(object, &slot.base, &slot.desired).is_none() {
            return;
        }
        slot.writing = true;
        slot.settled.send_replace(false);
        tokio::spawn(self.clone().write_until_clean(uid.to_owned()));
    }

    async fn write_until_clean(self, uid: String) {
        let mut retry = FIRST_RETRY;
        let mut since = None;
        loop {
            let next = {
                let mut slots = self.lock();
                let Some(slot) = slots.get_mut(&uid) else { return };
                let object = slot.object.as_ref().filter(|_| !slot.gone);
                let patch = object.and_then(|object| status_patch(object, &slot.base, &slot.desired));
                if patch.is_none() {
                    slot.writing = false;
                    slot.settled.send_replace(true);
                }
                patch.map(|patch| (patch, slot.namespace.clone(), slot.name.clone(), slot.desired.clone()))
            };
            let Some((patch, namespace, name, desired)) = next else { return };
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let known = *since.get_or_insert_with(Instant::now);
            match pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(pod) => {
                    retry = FIRST_RETRY;
                    since = None;
                    self.seconds.observe(known.elapsed().as_secs_f64());
                    if let Some(slot) = self.lock().get_mut(&uid) {
                        // What was sent counts as what the API has, so that an API which normalises a field
                        // is not written to without end; the watch tells of changes by others.
                        slot.base = desired;
                        slot.base.conditions =
                            merge_foreign(slot.base.conditions.take(), pod.status.as_ref());
                        slot.base_version = slot.base_version.max(resource_version(&pod));
                    }
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && is_gone(&status) => {
                    self.object_gone(&uid);
                }
                Err(error) => {
                    tracing::warn!(pod = %name, %namespace, %error, "pod status not written yet");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }
}

/// A pod of this name with another UID (409 from the UID precondition) is as gone as none at all; any other
/// conflict is tried again.
pub(crate) fn is_gone(status: &kube::core::Status) -> bool {
    let another = ["Precondition failed: UID", "the UID in the precondition"];
    status.code == 404 || another.iter().any(|words| status.message.contains(words))
}

fn merge_foreign(
    sent: Option<Vec<k8s_openapi::api::core::v1::PodCondition>>,
    answered: Option<&PodStatus>,
) -> Option<Vec<k8s_openapi::api::core::v1::PodCondition>> {
    let own = super::conditions::OWNED;
    let mut conditions = sent.unwrap_or_default();
    conditions.retain(|condition| own.contains(&condition.type_.as_str()));
    conditions.extend(
        answered
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .filter(|condition| !own.contains(&condition.type_.as_str()))
            .cloned(),
    );
    Some(conditions)
}

fn resource_version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

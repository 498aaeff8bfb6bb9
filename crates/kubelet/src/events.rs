//! The event recorder: what happens to pods and the node becomes `v1.Event` objects.
//!
//! A recording call only puts into a bounded queue, so no pod ever waits for an event; one task writes them
//! in order. The same event again raises the count of the stored one instead of making a second (IMG-41),
//! and an object that produces events without end is cut off as upstream's spam filter does: 25 at once, one
//! more every five minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use crate::clock::Clock;

/// Events waiting to be written; more than these are dropped (and logged), never waited for.
const QUEUE: usize = 2_000;
/// Remembered events, for counting repeats.
const REMEMBERED: usize = 4_096;
/// Events about one object before the spam filter steps in.
const BURST: f64 = 25.0;
/// Events per second that the spam filter lets through after the burst.
const REFILL: f64 = 1.0 / 300.0;

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something expected.
    Normal,
    /// Something that somebody may have to look at.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug)]
struct Occurrence {
    regarding: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Puts events into the queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Occurrence>,
    clock: Clock,
}

impl EventRecorder {
    /// A recorder and the task that writes for it; the task ends when all recorders are gone.
    pub fn start(client: kube::Client, node_name: &str, clock: Clock) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let writer = EventWriter {
            client,
            node_name: Arc::from(node_name),
            remembered: HashMap::new(),
            buckets: HashMap::new(),
            named: 0,
        };
        let task = tokio::spawn(writer.run(occurrences));
        (Self { queue, clock }, task)
    }

    /// Records that something happened to `regarding`.
    pub fn record(
        &self,
        regarding: ObjectReference,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let message = message.into();
        tracing::info!(
            object = regarding.name.as_deref().unwrap_or_default(),
            field = regarding.field_path.as_deref().unwrap_or_default(),
            reason,
            message,
            "event"
        );
        let occurrence =
            Occurrence { regarding, event_type, reason: reason.to_owned(), message, at: self.clock.now() };
        if self.queue.try_send(occurrence).is_err() {
            tracing::warn!(reason, "the event queue is full: event dropped");
        }
    }
}

/// What makes two events "the same".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EventKey {
    uid: String,
    field_path: String,
    event_type: EventType,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Remembered {
    name: String,
    namespace: String,
    count: i32,
    last: Timestamp,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct EventWriter {
    client: kube::Client,
    node_name: Arc<str>,
    remembered: HashMap<EventKey, Remembered>,
    buckets: HashMap<String, Bucket>,
    /// What the last event's name ends with.
    named: u64,
}

impl EventWriter {
    async fn run(mut self, mut occurrences: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = occurrences.recv().await {
            if !self.admit(&occurrence) {
                continue;
            }
            self.write(occurrence).await;
            self.forget_oldest();
        }
    }

    /// The spam filter: a token bucket per object.
    fn admit(&mut self, occurrence: &Occurrence) -> bool {
        if self.buckets.len() > REMEMBERED {
            self.buckets.clear();
        }
        let uid = occurrence.regarding.uid.clone().unwrap_or_default();
        let bucket = self.buckets.entry(uid).or_insert(Bucket { tokens: BURST, at: occurrence.at });
        let elapsed = occurrence.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed * REFILL).min(BURST);
        bucket.at = occurrence.at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    async fn write(&mut self, occurrence: Occurrence) {
        let key = EventKey {
            uid: occurrence.regarding.uid.clone().unwrap_or_default(),
            field_path: occurrence.regarding.field_path.clone().unwrap_or_default(),
            event_type: occurrence.event_type,
            reason: occurrence.reason.clone(),
            message: occurrence.message.clone(),
        };
        if let Some(remembered) = self.remembered.get_mut(&key) {
            remembered.count += 1;
            remembered.last = occurrence.at;
            if raise_count(&self.client, remembered).await {
                return;
            }
            // Expired or deleted in the meantime: the next write makes a new one.
            self.remembered.remove(&key);
        }
        // As upstream, its time; two of one moment have different names all the same.
        self.named = (occurrence.at.as_nanosecond() as u64).max(self.named.wrapping_add(1));
        let event = new_event(&occurrence, &self.node_name, self.named);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        if create(&self.client, &namespace, &event).await {
            self.remembered.insert(key, Remembered { name, namespace, count: 1, last: occurrence.at });
        }
    }

    fn forget_oldest(&mut self) {
        if self.remembered.len() > REMEMBERED {
            let mut times: Vec<Timestamp> = self.remembered.values().map(|event| event.last).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.remembered.retain(|_, event| event.last > middle);
        }
    }
}

fn new_event(occurrence: &Occurrence, node_name: &str, suffix: u64) -> Event {
    let regarding = &occurrence.regarding;
    let at = Some(Time(crate::clock::truncate_to_seconds(occurrence.at)));
    let object = regarding.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object}.{suffix:016x}")),
            namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: regarding.clone(),
        reason: Some(occurrence.reason.clone()),
        message: Some(occurrence.message.chars().take(1_024).collect()),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node_name.to_owned()) }),
        type_: Some(occurrence.event_type.as_str().to_owned()),
        first_timestamp: at.clone(),
        last_timestamp: at,
        count: Some(1),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    }
}

/// Writes a new event; a few tries while the API is away, then it is given up.
async fn create(client: &kube::Client, namespace: &str, event: &Event) -> bool {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    for attempt in 0..12_u32 {
        match events.create(&PostParams::default(), event).await {
            Ok(_) => return true,
            // The API refused it (namespace going away, no permission): another try changes nothing.
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                tracing::debug!(%status, "event refused");
                return false;
            }
            Err(error) => {
                tracing::debug!(%error, attempt, "event not written yet");
                tokio::time::sleep(Duration::from_millis(100 << attempt.min(6))).await;
            }
        }
    }
    tracing::warn!(reason = event.reason.as_deref(), "event lost: the API server does not take it");
    false
}

async fn raise_count(client: &kube::Client, remembered: &Remembered) -> bool {
    let events: Api<Event> = Api::namespaced(client.clone(), &remembered.namespace);
    let patch = serde_json::json!({
        "count": remembered.count,
        "lastTimestamp": Time(crate::clock::truncate_to_seconds(remembered.last)),
    });
    events.patch(&remembered.name, &PatchParams::default(), &Patch::Strategic(patch)).await.is_ok()
}

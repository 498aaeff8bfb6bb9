//! A watch over HTTP: one JSON line a change, until the client goes or the time is up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use rand::Rng;
use sampan_api::table::{IncludeObject, table};
use sampan_api::{Resource, Status, conversion, meta};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::object::{Event, EventKind, Object, frame};
use super::{Follower, TooOld};
use crate::handlers::options::WatchRequest;
use crate::negotiate::Form;
use crate::registry::list::Selection;
use crate::registry::{Scope, codec, store_failure};
use crate::respond::{Body, Response};

/// How often a watch says how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a watch lasts at least, when the client does not say (upstream's `--min-request-timeout`).
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// How many events are taken at once.
const BATCH: usize = 128;
/// How many bytes go out in one piece, unless a single event is larger.
const CHUNK: usize = 64 << 10;

/// Begins a watch.
///
/// # Errors
/// 404 for what cannot be watched, 504 for versions that do not exist yet.
pub(crate) async fn open(
    scope: &Scope<'_>,
    request: WatchRequest,
    form: Form,
    include: IncludeObject,
) -> Result<Response, Status> {
    let registry = &scope.server.registry;
    let cache = registry.cache(scope.resource).ok_or_else(Status::method_not_allowed)?.clone();
    let progress = registry.caches().progress();
    let namespace = if scope.resource.namespaced { scope.namespace } else { "" };
    let view = View {
        resource: scope.resource,
        head: codec::head(scope.storage()),
        namespace: if namespace.is_empty() { String::new() } else { format!("{namespace}/") },
        selection: request.selection,
        form,
        include,
        converts: scope.converts(),
        columns_sent: false,
    };
    let seconds = request
        .timeout_seconds
        .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS));
    let ends = Instant::now() + Duration::from_secs(seconds.min(7 * 24 * 3600));
    let mut stream = Stream {
        view,
        follower: None,
        initial: Vec::new().into_iter(),
        marks_initial_end: false,
        progress,
        pending: VecDeque::new(),
        since: 0,
        after: 0,
        bookmarks: request.bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
        bookmark_due: false,
        ends,
        over: false,
    };

    let version = request.version.unwrap_or_default();
    let with_state = request.initial_events.unwrap_or(version == 0);
    if with_state {
        // What is there first. "Most recent" (no version) means not older than the store is now.
        let needed = match request.version {
            None => registry.store().revision().await.map_err(|error| store_failure(&error))?.0,
            Some(version) => version,
        };
        if !registry.caches().wait_for(needed).await {
            let current = registry.caches().revision();
            return Err(Status::too_large_resource_version(needed.unsigned_abs(), current.unsigned_abs(), 1));
        }
        let snapshot = cache.snapshot(namespace, registry.caches().revision());
        stream.after = snapshot.revision;
        stream.initial = snapshot.objects.into_iter();
        stream.marks_initial_end = request.initial_events == Some(true) && request.bookmarks;
        stream.follower = Some(snapshot.follower);
    } else {
        // `sendInitialEvents=false` without a version begins now.
        let after = match request.version {
            Some(version) if version > 0 => version,
            _ => {
                registry.catch_up().await?;
                registry.caches().revision()
            }
        };
        (stream.since, stream.after) = (after, after);
        match cache.follow(after) {
            Ok(follower) => stream.follower = Some(follower),
            Err(too_old) => stream.expire(too_old),
        }
    }
    let body = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What of the cache this watcher sees, and how.
struct View {
    resource: &'static Resource,
    head: String,
    /// With its slash; empty is all namespaces.
    namespace: String,
    selection: Selection,
    form: Form,
    include: IncludeObject,
    converts: bool,
    columns_sent: bool,
}

impl View {
    fn is_plain(&self) -> bool {
        self.form == Form::Object && !self.converts
    }

    fn initial(&mut self, object: &Object) -> Option<Bytes> {
        if !self.selection.matches(object) {
            return None;
        }
        Some(self.line(EventKind::Added, &object.bytes))
    }

    /// What an event means to this watcher: an object that begins or ceases to be selected is added or deleted.
    fn event(&mut self, event: &Event) -> Option<Bytes> {
        if !self.namespace.is_empty() && !event.object.suffix.starts_with(&self.namespace) {
            return None;
        }
        if self.selection.is_everything() {
            return Some(if self.is_plain() {
                event.frame()
            } else {
                self.line(event.kind, &event.object.bytes)
            });
        }
        let before = event.previous.as_ref().is_some_and(|object| self.selection.matches(object));
        let now = event.kind != EventKind::Deleted && self.selection.matches(&event.object);
        match (before, now) {
            (false, false) => None,
            (true, true) if self.is_plain() && event.kind == EventKind::Modified => Some(event.frame()),
            (true, true) => Some(self.line(EventKind::Modified, &event.object.bytes)),
            (false, true) => Some(self.line(EventKind::Added, &event.object.bytes)),
            (true, false) if event.kind == EventKind::Deleted => {
                Some(self.line(EventKind::Deleted, &event.object.bytes))
            }
            (true, false) => {
                // The state that was selected last, at the version that ended it.
                let previous = event.previous.as_ref()?;
                let bytes = codec::reversioned(&self.head, &previous.bytes, event.object.revision);
                Some(self.line(EventKind::Deleted, &bytes))
            }
        }
    }

    fn line(&mut self, kind: EventKind, object: &Bytes) -> Bytes {
        if self.is_plain() {
            return frame(kind.as_str(), object);
        }
        let mut value: Value = serde_json::from_slice(object).unwrap_or_default();
        if self.converts {
            conversion::from_storage(self.resource, &mut value);
        }
        let shown = match self.form {
            Form::Object => value,
            Form::PartialMetadata => meta::partial_object_metadata(&value),
            Form::Table => {
                let version = meta::resource_version(&value).to_owned();
                let mut rows = table(self.resource, &[value], Timestamp::now(), self.include);
                rows["metadata"] = json!({"resourceVersion": version});
                // Columns are told once.
                if std::mem::replace(&mut self.columns_sent, true) {
                    rows["columnDefinitions"] = Value::Null;
                }
                rows
            }
        };
        frame(kind.as_str(), &serde_json::to_vec(&shown).unwrap_or_default())
    }
}

/// A line that says how far the watch is.
fn bookmark(resource: &Resource, form: Form, revision: i64, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match form {
        Form::Object => {
            json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
        }
        Form::PartialMetadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Form::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": []}),
    };
    frame("BOOKMARK", &serde_json::to_vec(&object).unwrap_or_default())
}

struct Stream {
    view: View,
    /// `None` once the watch failed: what is pending is its end.
    follower: Option<Follower>,
    /// What was there at first and is not reported yet. Lines are made as they are taken: a client that does not read must
    /// not cost a copy of everything.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Whether the client is told where that ends.
    marks_initial_end: bool,
    progress: tokio::sync::watch::Receiver<i64>,
    pending: VecDeque<Bytes>,
    /// Nothing up to this revision is reported: what the client has seen before.
    since: i64,
    /// Everything up to this revision has been reported.
    after: i64,
    bookmarks: bool,
    next_bookmark: Instant,
    /// It is time for one: once everything that happened is reported.
    bookmark_due: bool,
    ends: Instant,
    over: bool,
}

impl Stream {
    /// Ends the watch with 410: the client lists again.
    fn expire(&mut self, too_old: TooOld) {
        let status =
            Status::too_old_resource_version(self.after.unsigned_abs(), too_old.oldest.unsigned_abs());
        let object = serde_json::to_vec(&status.to_value()).unwrap_or_default();
        self.pending.push_back(frame("ERROR", &object));
        self.follower = None;
    }

    /// The next piece of the body.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.chunk() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            if self.report_initial() {
                continue;
            }
            let Some(follower) = &mut self.follower else { return None };
            // Read before the events are taken: all of them up to this revision are there.
            let reached = *self.progress.borrow();
            match follower.take(BATCH) {
                Err(too_old) => {
                    self.expire(too_old);
                    continue;
                }
                Ok(events) if !events.is_empty() => {
                    self.report(&events);
                    continue;
                }
                Ok(_) => {}
            }
            self.after = self.after.max(reached);
            if std::mem::take(&mut self.bookmark_due) {
                self.pending.push_back(bookmark(self.view.resource, self.view.form, self.after, false));
                continue;
            }
            let next_bookmark = self.next_bookmark;
            let (ends, bookmarks) = (self.ends, self.bookmarks);
            tokio::select! {
                biased;
                open = follower.changed() => self.over = !open,
                () = tokio::time::sleep_until(ends) => self.over = true,
                () = tokio::time::sleep_until(next_bookmark), if bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    self.bookmark_due = true;
                }
            }
        }
    }

    /// The next of what was there at first; false when that has ended.
    fn report_initial(&mut self) -> bool {
        let some: Vec<_> = self.initial.by_ref().take(BATCH).collect();
        if some.is_empty() && !std::mem::take(&mut self.marks_initial_end) {
            return false;
        }
        if some.is_empty() {
            self.pending.push_back(bookmark(self.view.resource, self.view.form, self.after, true));
        }
        self.pending.extend(some.iter().filter_map(|object| self.view.initial(object)));
        true
    }

    fn report(&mut self, events: &[Arc<Event>]) {
        for event in events {
            // Several events may have one revision: all Events of a lease go at once.
            if event.object.revision <= self.since {
                continue;
            }
            self.after = event.object.revision;
            if let Some(line) = self.view.event(event) {
                self.pending.push_back(line);
            }
        }
    }

    /// What is pending, several lines in one piece.
    fn chunk(&mut self) -> Option<Bytes> {
        let first = self.pending.pop_front()?;
        match self.pending.front() {
            Some(second) if first.len() + second.len() <= CHUNK => {}
            _ => return Some(first),
        }
        let mut out = BytesMut::from(&first[..]);
        while let Some(line) = self.pending.front() {
            if out.len() + line.len() > CHUNK {
                break;
            }
            out.extend_from_slice(line);
            self.pending.pop_front();
        }
        Some(out.freeze())
    }
}

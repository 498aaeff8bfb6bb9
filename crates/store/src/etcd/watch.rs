//! A watch in etcd: one gRPC stream each, its messages cut into one batch per revision.

use std::collections::VecDeque;

use futures::{StreamExt, stream};
use tonic::transport::Channel;

use super::convert::{key_value, refused, revision};
use super::proto::watch_client::WatchClient;
use super::proto::{self, watch_request::RequestUnion};
use crate::{Error, KeyRange, Revision, Watch, WatchBatch, WatchEvent};

/// Opens the stream; returns when etcd confirmed the watch.
pub(super) async fn open(
    mut client: WatchClient<Channel>,
    range: KeyRange,
    from: Option<Revision>,
) -> Result<Watch, Error> {
    let from = from.unwrap_or_default();
    let create = proto::WatchCreateRequest {
        key: if range.start.is_empty() { vec![0].into() } else { range.start },
        range_end: range.end,
        start_revision: from.0.max(0),
        progress_notify: true,
        prev_kv: true,
    };
    let request = proto::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The request side stays open for as long as the watch lives: closing it would end the watch.
    let requests = stream::iter([request]).chain(stream::pending());
    let mut responses =
        client.watch(requests).await.map_err(|status| refused("watch", from, status))?.into_inner();
    let created = responses
        .message()
        .await
        .map_err(|status| refused("watch", from, status))?
        .ok_or(Error::Answer { operation: "watch", missing: "a confirmation" })?;
    let now = revision("watch", created.header)?;
    let mark = Revision(if from.0 > 0 { from.0 - 1 } else { now.0 });
    let first = Ok(WatchBatch { revision: mark, events: [].into() });
    let watcher = Watcher { responses, from, pending: batches(created, from, true), ended: false };
    let rest = stream::unfold(watcher, |mut watcher| async move {
        let item = watcher.step().await?;
        Some((item, watcher))
    });
    Ok(stream::iter([first]).chain(rest).boxed())
}

struct Watcher {
    responses: tonic::Streaming<proto::WatchResponse>,
    from: Revision,
    pending: VecDeque<Result<WatchBatch, Error>>,
    ended: bool,
}

impl Watcher {
    async fn step(&mut self) -> Option<Result<WatchBatch, Error>> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                self.ended = item.is_err();
                return Some(item);
            }
            if self.ended {
                return None;
            }
            match self.responses.message().await {
                Ok(Some(response)) => self.pending = batches(response, self.from, false),
                Ok(None) => return None,
                Err(status) => {
                    self.ended = true;
                    return Some(Err(refused("watch", self.from, status)));
                }
            }
        }
    }
}

/// What one message says: events, an end, or progress; `created` confirmations say nothing.
fn batches(
    response: proto::WatchResponse,
    from: Revision,
    created: bool,
) -> VecDeque<Result<WatchBatch, Error>> {
    if response.compact_revision > 0 {
        let oldest = Revision(response.compact_revision);
        return [Err(Error::Compacted { requested: from, oldest })].into();
    }
    if response.canceled {
        let status = tonic::Status::cancelled(response.cancel_reason);
        return [Err(refused("watch", from, status))].into();
    }
    if response.events.is_empty() && !created {
        let revision = Revision(response.header.map_or(0, |header| header.revision));
        return [Ok(WatchBatch { revision, events: [].into() })].into();
    }
    let events: Vec<WatchEvent> = response.events.into_iter().filter_map(event).collect();
    events
        .chunk_by(|one, next| one.kv.mod_revision == next.kv.mod_revision)
        .map(|events| Ok(WatchBatch { revision: events[0].kv.mod_revision, events: events.into() }))
        .collect()
}

fn event(event: proto::Event) -> Option<WatchEvent> {
    let deleted = event.r#type() == proto::event::EventType::Delete;
    Some(WatchEvent { kv: key_value(event.kv?), previous: event.prev_kv.map(key_value), deleted })
}

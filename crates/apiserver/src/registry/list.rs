//! Lists: a consistent piece of a collection at one revision.

use std::sync::Arc;

use bytes::Bytes;
use sampan_api::selector::{FieldSelector, LabelSelector};
use sampan_api::{Resource, Status};
use sampan_store::{KeyRange, RangeRequest, Revision};
use serde_json::Value;

use super::continue_token::Continue;
use super::{Registry, codec, key, store_failure};
use crate::watch::Object;

/// How many keys one read takes from the store at most.
const PAGE: usize = 500;

/// How `resourceVersion` binds a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest state.
    Newest,
    /// Any state not older than this revision; 0 is any at all.
    NotOlderThan(i64),
    /// The state at this revision.
    Exact(i64),
}

/// Which objects are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether everything is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub fn matches(&self, object: &Object) -> bool {
        self.is_everything() || self.matches_value(object.subject())
    }

    /// The same for an object that is parsed.
    pub fn matches_value(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Empty is all.
    pub namespace: String,
    /// Which objects.
    pub selection: Selection,
    /// At which revision.
    pub at: At,
    /// How many at most; 0 is no limit.
    pub limit: usize,
    /// Where a list that was cut goes on.
    pub continues: Option<Continue>,
}

/// A list, or a piece of one.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// The revision at which they were read.
    pub revision: i64,
    /// Where the list goes on.
    pub continues: Option<Continue>,
    /// How many objects follow, if that is known.
    pub remaining: Option<usize>,
}

impl Registry {
    /// Lists a resource. Whole lists of the newest state come from the caches (which first catch up with the store), pieces and old
    /// states from the store.
    ///
    /// # Errors
    /// 410 for revisions that are compacted, 504 for those that do not exist yet.
    pub async fn list(&self, resource: &Resource, request: &ListRequest) -> Result<Page, Status> {
        let resource = resource.storage();
        let newest = self.store.revision().await.map_err(|error| store_failure(&error))?.0;
        if let At::NotOlderThan(wanted) | At::Exact(wanted) = request.at
            && wanted > newest
            && !self.caches.wait_for(wanted).await
        {
            return Err(Status::too_large_resource_version(wanted.unsigned_abs(), newest.unsigned_abs(), 1));
        }
        let whole = request.limit == 0 && request.continues.is_none() && !matches!(request.at, At::Exact(_));
        let needed = match request.at {
            At::NotOlderThan(0) => 0,
            At::NotOlderThan(wanted) => wanted.max(newest),
            _ => newest,
        };
        if whole
            && let Some(cache) = self.cache(resource)
            && self.caches.wait_for(needed).await
        {
            let snapshot = cache.snapshot(&request.namespace, self.caches.revision());
            let mut objects = snapshot.objects;
            if !request.selection.is_everything() {
                objects.retain(|object| request.selection.matches(object));
            }
            return Ok(Page { objects, revision: snapshot.revision, continues: None, remaining: None });
        }
        self.list_store(resource, request).await
    }

    async fn list_store(&self, resource: &Resource, request: &ListRequest) -> Result<Page, Status> {
        let prefix = key::namespace_prefix(resource, &request.namespace);
        let head = codec::head(resource);
        let suffix_from = key::prefix(resource).len();
        let whole = KeyRange::prefix(&prefix);
        let mut start = whole.start.clone();
        let mut at = match request.at {
            At::Exact(revision) => Some(Revision(revision)),
            _ => None,
        };
        if let Some(continues) = &request.continues {
            start = Bytes::from(format!("{prefix}{}", continues.start));
            at = continues.revision.map(Revision);
        }
        let mut objects = Vec::new();
        loop {
            let missing = request.limit.saturating_sub(objects.len());
            let limit = match (request.limit, request.selection.is_everything()) {
                (0, _) => 0,
                (_, true) => missing,
                (_, false) => PAGE.max(missing),
            };
            let range = KeyRange { start: start.clone(), end: whole.end.clone() };
            let answer = self.store.range(RangeRequest { range, at, limit, count_only: false }).await;
            let answer = answer.map_err(|error| match (&error, &request.continues) {
                (sampan_store::Error::Compacted { .. }, Some(continues)) => {
                    let anew = Continue { start: continues.start.clone(), revision: None };
                    Status::continue_expired(anew.encode())
                }
                _ => store_failure(&error),
            })?;
            let revision = at.unwrap_or(answer.revision);
            at = Some(revision);
            let read = answer.kvs.len();
            for (index, kv) in answer.kvs.into_iter().enumerate() {
                let suffix = String::from_utf8_lossy(&kv.key[suffix_from..]).into_owned();
                let bytes = codec::versioned(&head, &kv.value, kv.mod_revision.0);
                start = KeyRange::key(&kv.key).end;
                let object = Object::new(suffix, kv.mod_revision.0, bytes);
                if request.selection.matches(&object) {
                    objects.push(Arc::new(object));
                }
                if request.limit > 0 && objects.len() == request.limit {
                    let more = index + 1 < read || answer.more;
                    let continues = more.then(|| Continue {
                        start: String::from_utf8_lossy(&start[prefix.len()..]).into_owned(),
                        revision: Some(revision.0),
                    });
                    let known = more && request.selection.is_everything();
                    let remaining = known.then(|| answer.count.saturating_sub(index + 1));
                    return Ok(Page { objects, revision: revision.0, continues, remaining });
                }
            }
            if !answer.more {
                return Ok(Page { objects, revision: revision.0, continues: None, remaining: None });
            }
        }
    }
}

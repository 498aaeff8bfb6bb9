//! Objects in the store: reading them at one revision, and writing them so that nobody's change is lost.
//!
//! What is here knows kinds only through `sampan_api`: [`create`], [`update`] and [`delete`] are the one way by which
//! anything is written, whether the request came over HTTPS, from a component in this process or from the
//! server itself.

pub mod allocation;
mod certificates;
pub mod codec;
mod compaction;
pub mod continue_token;
pub mod create;
pub mod delete;
mod inert;
pub mod key;
mod lease;
pub mod list;
pub(crate) mod rules;
pub mod scope;
pub mod update;

use std::sync::Arc;

use bytes::Bytes;
use sampan_api::{Resource, Status};
use sampan_store::{Compare, Op, RangeRequest, Revision, Store, Txn};
use serde_json::Value;
use tokio::task::AbortHandle;

pub use scope::Scope;

use crate::watch::{Cache, Caches, Object};
use crate::{Config, Error};

/// The objects of the cluster.
pub struct Registry {
    store: Arc<dyn Store>,
    caches: Caches,
    /// Addresses and ports of Services.
    pub(crate) allocation: allocation::Allocator,
    leases: lease::EventLeases,
    compaction: AbortHandle,
}

impl Registry {
    /// Fills the caches and starts what runs in the background.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let caches = Caches::start(config.store.clone()).await?;
        Ok(Self {
            allocation: allocation::Allocator::new(config.service_cidr, config.node_ports),
            leases: lease::EventLeases::new(config.store.clone()),
            compaction: compaction::start(config.store.clone()),
            store: config.store.clone(),
            caches,
        })
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// All caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// The cache of a resource: reading it costs no I/O and may lag behind the store by a moment.
    pub fn cache(&self, resource: &Resource) -> Option<&Arc<Cache>> {
        self.caches.cache(resource)
    }

    /// An object from the caches, after these have caught up with the store: as good as reading the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_fresh(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        if self.catch_up().await? {
            return Ok(self.cache(resource).and_then(|cache| cache.get(namespace, name)));
        }
        self.get_object(resource, namespace, name).await
    }

    /// Waits until the caches have seen everything that was written before the call. False when they lag.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn catch_up(&self) -> Result<bool, Status> {
        let revision = self.store.revision().await.map_err(|error| store_failure(&error))?;
        Ok(self.caches.wait_for(revision.0).await)
    }

    /// An object as the store has it now, in its storage version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        match self.read(resource, namespace, name).await? {
            Some((value, revision)) => codec::decode(&value, revision).map(Some),
            None => Ok(None),
        }
    }

    /// An object's bytes as the store has them now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_object(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        let resource = resource.storage();
        let found = self.read(resource, namespace, name).await?;
        Ok(found.map(|(value, revision)| {
            let bytes = codec::versioned(&codec::head(resource), &value, revision);
            Arc::new(Object::new(key::suffix(namespace, name), revision, bytes))
        }))
    }

    async fn read(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(Bytes, i64)>, Status> {
        let key = key::key(resource.storage(), namespace, name);
        let range = sampan_store::KeyRange::key(key);
        let answer = self
            .store
            .range(RangeRequest { range, at: None, limit: 1, count_only: false })
            .await
            .map_err(|error| store_failure(&error))?;
        Ok(answer.kvs.into_iter().next().map(|kv| (kv.value, kv.mod_revision.0)))
    }

    /// Writes an object when the one that is there has the revision `expected` (0: when there is none). Answers the
    /// new revision, or `None` when something else is there. `object` is in the storage version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        object: &Value,
        expected: i64,
    ) -> Result<Option<i64>, Status> {
        let resource = resource.storage();
        let key = Bytes::from(key::key(resource, namespace, name));
        let lease = self.leases.of(resource).await?;
        let value = codec::encode(resource, object);
        self.commit(key.clone(), expected, Op::Put { key, value, lease }).await
    }

    /// Removes an object that has the revision `expected`. Answers the revision of the removal, or `None` when something
    /// else (or nothing) is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        expected: i64,
    ) -> Result<Option<i64>, Status> {
        let key = Bytes::from(key::key(resource.storage(), namespace, name));
        self.commit(key.clone(), expected, Op::Delete(key)).await
    }

    async fn commit(&self, key: Bytes, expected: i64, op: Op) -> Result<Option<i64>, Status> {
        let txn = Txn {
            when: vec![Compare::ModRevision(key, Revision(expected))],
            then: vec![op],
            read: Vec::new(),
        };
        let answer = self.store.txn(txn).await.map_err(|error| store_failure(&error))?;
        Ok(answer.succeeded.then_some(answer.revision.0))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.compaction.abort();
    }
}

/// What a request is told when the store fails.
pub(crate) fn store_failure(error: &sampan_store::Error) -> Status {
    use std::error::Error as _;
    match error {
        sampan_store::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        sampan_store::Error::Full { .. } => Status::internal_error(error),
        _ => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(": ");
                text.push_str(&error.to_string());
                source = error.source();
            }
            tracing::error!(error = text, "the store failed");
            Status::internal_error(text)
        }
    }
}

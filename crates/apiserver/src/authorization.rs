//! Who may do what: members of `system:masters` everything, kubelets what concerns their node, everybody what
//! roles grant.
//!
//! Decisions read memory only: indexes are kept by a watch of the store. A denial is given only after they have
//! caught up with the store, so that a grant holds as soon as its creation was acknowledged.

mod aggregation;
mod defaults;
mod escalation;
mod graph;
mod mirror;
mod node;
mod rbac;
mod reconcile;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sampan_api::scheme;
use sampan_api::status::Status;
use sampan_store::{KeyRange, RangeRequest, Store};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

pub use escalation::{Escalation, check as check_escalation};
pub use mirror::BoundObject;
pub use rbac::{MissingRole, RoleRef, Subject};
pub use rules::PolicyRule;

use crate::context::RequestContext;
use crate::registry::{codec, key};
use crate::request_info::RequestInfo;
use crate::user::{ANONYMOUS, MASTERS, UserInfo};
use crate::{ApiServer, Config, Error};
use graph::NodeGraph;
use rbac::{Rbac, Verdict};

/// What is asked: upstream's authorizer attributes without the user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Whether a resource is meant; otherwise `verb` and `path` count.
    pub is_resource: bool,
    /// `get`, `list`, ... or the HTTP method in lower case.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// API version; no rule looks at it.
    pub version: &'a str,
    /// The resource's plural.
    pub resource: &'a str,
    /// The subresource; empty is none.
    pub subresource: &'a str,
    /// The namespace; empty is none or all.
    pub namespace: &'a str,
    /// The object's name; empty is all.
    pub name: &'a str,
    /// The path, when no resource is meant.
    pub path: &'a str,
    /// The field selector of a list or watch, as sent.
    pub field_selector: &'a str,
}

impl<'a> From<&'a RequestInfo> for Attributes<'a> {
    fn from(info: &'a RequestInfo) -> Self {
        Self {
            is_resource: info.is_resource,
            verb: &info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
        }
    }
}

/// The answer to a question, with its reason (by what it was allowed, or why it was not; often empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow(String),
    /// It must not be done, whatever other authorizers say.
    Deny(String),
    /// Nobody allowed it, which denies it as well.
    NoOpinion(String),
}

impl Decision {
    /// Whether the request may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// What decisions are made from; changed by [`mirror`] alone.
#[derive(Debug)]
struct Indexes {
    rbac: RwLock<Rbac>,
    graph: RwLock<NodeGraph>,
    objects: RwLock<mirror::Objects>,
    /// The store's revision that the indexes stand at.
    revision: watch::Sender<i64>,
    cluster_roles_changed: Notify,
}

/// The chain of authorizers with its indexes.
pub struct Authorization {
    indexes: Arc<Indexes>,
    store: Arc<dyn Store>,
    /// What follows the store; ends with `self`.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Drop for Authorization {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

impl Authorization {
    /// Empty indexes; [`Authorization::start`] fills them.
    ///
    /// # Errors
    /// None today.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self::over(config.store.clone()))
    }

    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        let indexes = Indexes {
            rbac: RwLock::default(),
            graph: RwLock::default(),
            objects: RwLock::default(),
            revision: watch::Sender::new(0),
            cluster_roles_changed: Notify::new(),
        };
        Self { indexes: Arc::new(indexes), store, tasks: Mutex::default() }
    }

    /// Writes the default roles and bindings that are missing, reads everything and follows the store from then on.
    /// The background work ends when `self` is dropped.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(&self) -> Result<(), Error> {
        reconcile::run(&*self.store).await?;
        let following = mirror::start(self.indexes.clone(), self.store.clone())
            .await
            .map_err(|source| Error::Store { operation: "read the roles", source })?;
        let (indexes, store) = (self.indexes.clone(), self.store.clone());
        let aggregating = tokio::spawn(async move {
            loop {
                // The time-out repeats what failed.
                let changed = indexes.cluster_roles_changed.notified();
                let _ = tokio::time::timeout(Duration::from_secs(10), changed).await;
                aggregate(&indexes, &*store).await;
            }
        });
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.extend([following, aggregating.abort_handle()]);
        Ok(())
    }

    /// Decides by what the indexes hold now.
    fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        if let Some(node) = user.node_name() {
            let graph = self.indexes.graph.read().unwrap_or_else(PoisonError::into_inner);
            match node::authorize(&graph, node, attributes) {
                Ok(()) => return Decision::Allow(String::new()),
                Err(reason) if reason.is_empty() => {}
                Err(reason) => reasons.push(reason),
            }
        }
        let rbac = self.indexes.rbac.read().unwrap_or_else(PoisonError::into_inner);
        let Verdict { allowed, reason } = rbac.authorize(user, attributes);
        if allowed {
            return Decision::Allow(reason);
        }
        if !reason.is_empty() {
            reasons.push(reason);
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Decides; before it denies it makes sure that it knows everything that the store has acknowledged.
    pub async fn check(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let decision = self.decide(user, attributes);
        // Nobody can make the anonymous user's denials expensive.
        if decision.is_allowed() || user.username == ANONYMOUS {
            return decision;
        }
        self.catch_up().await;
        self.decide(user, attributes)
    }

    /// Whether the user may, by what is known now.
    fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        self.decide(user, attributes).is_allowed()
    }

    /// Waits until the indexes know everything that the store has acknowledged so far.
    pub async fn catch_up(&self) {
        self.indexes.catch_up(&*self.store).await;
    }

    /// The rules that grant to the user in a namespace, and what kept the list from being complete.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let rbac = self.indexes.rbac.read().unwrap_or_else(PoisonError::into_inner);
        let (rules, mut problems) = rbac.rules_for(user, namespace);
        if user.node_name().is_some() {
            problems.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        (rules, problems)
    }

    /// What the indexes know of a Pod, Secret, Node or ServiceAccount (`resource` is the plural): enough to check a
    /// token without reading the store.
    pub fn bound_object(&self, resource: &str, namespace: &str, name: &str) -> Option<BoundObject> {
        let objects = self.indexes.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(resource, namespace, name).cloned()
    }

    fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, MissingRole> {
        self.indexes.rbac.read().unwrap_or_else(PoisonError::into_inner).resolve(role, namespace)
    }
}

/// Writes the ClusterRoles whose aggregated rules are not what they should be.
async fn aggregate(indexes: &Indexes, store: &dyn Store) {
    let outdated = {
        let rbac = indexes.rbac.read().unwrap_or_else(PoisonError::into_inner);
        aggregation::outdated(rbac.cluster_roles())
    };
    let Some(resource) = scheme::find("rbac.authorization.k8s.io", "v1", "clusterroles") else { return };
    for (name, rules) in outdated {
        let key = key::key(resource, "", &name);
        let request = RangeRequest { range: KeyRange::key(&key), at: None, limit: 1, count_only: false };
        let Ok(found) = store.range(request).await else { return };
        let Some(kv) = found.kvs.into_iter().next() else { continue };
        let Ok(mut object) = codec::decode(&kv.value, kv.mod_revision.0) else { continue };
        object["rules"] = serde_json::to_value(rules).unwrap_or_default();
        let write = aggregation::replace(key, codec::encode(resource, &object), kv.mod_revision);
        // Whoever came first also made the index change, which brings us here again.
        if let Err(error) = store.txn(write).await {
            tracing::warn!(role = name, %error, "cannot write an aggregated ClusterRole");
        }
    }
}

/// Decides about a request.
pub async fn authorize(server: &ApiServer, user: &UserInfo, info: &RequestInfo) -> Decision {
    server.authorization.check(user, &info.into()).await
}

/// Makes sure that the request's user may also do it with another verb.
///
/// # Errors
/// 403 when not.
pub(crate) async fn ensure(server: &ApiServer, context: &RequestContext, verb: &str) -> Result<(), Status> {
    if context.info.verb == verb {
        return Ok(());
    }
    let info = RequestInfo { verb: verb.to_owned(), ..(*context.info).clone() };
    match authorize(server, &context.user, &info).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&context.user, &info, &reason)),
    }
}

/// The 403 for a request that is not allowed (without a user: 401, as for everything anonymous).
pub fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> Status {
    if user.username == ANONYMOUS {
        return Status::unauthorized();
    }
    let attributes = Attributes::from(info);
    let denial = denial(user, &attributes);
    let text = if reason.is_empty() { denial } else { format!("{denial}: {reason}") };
    if !info.is_resource {
        return Status::forbidden("", "", "", &text);
    }
    Status::forbidden(&info.group, &info.resource, &info.name, &text)
}

/// `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
fn denial(user: &UserInfo, ask: &Attributes<'_>) -> String {
    let (user, verb) = (&user.username, ask.verb);
    if !ask.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", ask.path);
    }
    let resource = match ask.subresource {
        "" => ask.resource.to_owned(),
        subresource => format!("{}/{subresource}", ask.resource),
    };
    let scope = match ask.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", ask.group)
}

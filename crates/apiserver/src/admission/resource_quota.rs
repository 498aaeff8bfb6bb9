//! ResourceQuota: what is created must fit into what the namespace's quotas leave (RTC-24).
//!
//! The room is taken by writing `status.used` of each quota before the object is written, so that of two creations at
//! the same time the second sees what the first took. A creation that fails afterwards has taken too much; the
//! controller, which counts anew, gives it back. What it counted may be old when it writes: an object for which room was
//! taken comes into being meanwhile. So its write is only the occasion, and the sum is made here, while no object is
//! on its way.

use std::sync::Arc;

use async_trait::async_trait;
use sampan_api::{
    Resource, Status, meta, quota,
    resources::{self, ResourceList},
    scheme,
};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{Attributes, Operation, Plugin};

/// How often a quota that others write, too, is tried again.
const ATTEMPTS: usize = 32;

#[derive(Default)]
pub(super) struct ResourceQuota {
    /// Held by every object from taking room until it is written, and alone while is counted.
    on_the_way: Arc<RwLock<()>>,
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let counted = attributes.is_core("resourcequotas") && attributes.scope.subresource == "status";
        let Some(quota) = attributes.old.filter(|_| counted) else { return Ok(()) };
        attributes.hold(self.on_the_way.clone().write_owned().await);
        let hard = quota::hard(quota);
        let used = self.count(attributes, quota, &hard).await?;
        attributes.object["status"] =
            json!({"hard": resources::to_value(&hard), "used": resources::to_value(&used)});
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let scope = attributes.scope;
        let resizes = attributes.is_core("pods") && scope.subresource == "resize";
        let grows = attributes.is("persistentvolumeclaims") || attributes.is("services") || resizes;
        let concerns = match attributes.operation {
            Operation::Create => true,
            Operation::Update => grows,
            Operation::Delete => false,
        };
        if !concerns || scope.namespace.is_empty() || !(scope.subresource.is_empty() || resizes) {
            return Ok(());
        }
        let Some(quotas) = scheme::find("", "v1", "resourcequotas") else { return Ok(()) };
        let registry = &scope.server.registry;
        let Some(cache) = registry.cache(quotas) else { return Ok(()) };
        registry.catch_up().await?;
        let here = cache.snapshot(scope.namespace, 0).objects;
        let names: Vec<String> = here.iter().map(|quota| quota.name().to_owned()).collect();
        if !names.is_empty() && !attributes.holds() {
            attributes.hold(self.on_the_way.clone().read_owned().await);
        }
        // Of several quotas the last one may refuse: nothing is taken before all of them agree.
        if names.len() > 1 {
            for name in &names {
                self.take(attributes, quotas, name, true).await?;
            }
        }
        for name in &names {
            self.take(attributes, quotas, name, scope.dry_run).await?;
        }
        Ok(())
    }
}

impl ResourceQuota {
    /// Takes the object's room from one quota; `only_look` says whether it could be taken.
    async fn take(
        &self,
        attributes: &Attributes<'_>,
        quotas: &Resource,
        name: &str,
        only_look: bool,
    ) -> Result<(), Status> {
        let (scope, resource) = (attributes.scope, attributes.resource());
        let registry = &scope.server.registry;
        for _ in 0..ATTEMPTS {
            let Some(mut quota) = registry.get(quotas, scope.namespace, name).await? else { return Ok(()) };
            if !quota::in_scope(&quota, resource, &attributes.object) {
                return Ok(());
            }
            if resource.plural == "pods"
                && resource.group.is_empty()
                && let Some(why) = quota::unspecified(&quota, &attributes.object)
            {
                return Err(attributes.forbidden(format!("failed quota: {name}: {why}")));
            }
            let hard = quota::hard(&quota);
            let requested = quota::mask(&increase(attributes), &hard);
            if requested.values().all(|amount| amount.is_zero() || amount.is_negative()) {
                return Ok(());
            }
            let known = resources::parse(quota.pointer("/status/used"));
            let counted = resources::parse(quota.pointer("/status/hard"));
            let mut used = if hard.keys().all(|name| counted.contains_key(name)) {
                known
            } else {
                // The controller has not been here yet.
                self.count(attributes, &quota, &hard).await?
            };
            let before = used.clone();
            resources::add(&mut used, &requested);
            let over = quota::exceeded(&quota::mask(&used, &requested), &hard);
            if !over.is_empty() {
                let named = over.into_iter().map(|name| (name, Default::default())).collect::<ResourceList>();
                let shown = |list: &ResourceList| quota::describe(&quota::mask(list, &named));
                return Err(attributes.forbidden(format!(
                    "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                    shown(&requested),
                    shown(&before),
                    shown(&hard)
                )));
            }
            if only_look {
                return Ok(());
            }
            let revision = meta::resource_version(&quota).parse().unwrap_or_default();
            quota["status"] = json!({"hard": resources::to_value(&hard), "used": resources::to_value(&used)});
            if registry.put(quotas, scope.namespace, name, &quota, revision).await?.is_some() {
                return Ok(());
            }
        }
        let text = format!("the quota {name} is being changed by many at once: try again");
        Err(Status::too_many_requests(&text, 1))
    }

    /// What the namespace uses now, counted.
    async fn count(
        &self,
        attributes: &Attributes<'_>,
        quota: &Value,
        hard: &ResourceList,
    ) -> Result<ResourceList, Status> {
        let registry = &attributes.scope.server.registry;
        registry.catch_up().await?;
        let mut used: ResourceList = hard.keys().map(|name| (name.clone(), Default::default())).collect();
        for resource in
            scheme::resources().iter().filter(|resource| resource.namespaced && resource.is_stored())
        {
            let Some(cache) = registry.cache(resource) else { continue };
            let counts = quota::may_count(resource, hard);
            for object in cache.snapshot(attributes.scope.namespace, 0).objects.iter().filter(|_| counts) {
                let object = object.value();
                if quota::in_scope(quota, resource, &object) {
                    resources::add(&mut used, &quota::mask(&quota::usage(resource, &object), hard));
                }
            }
        }
        Ok(used)
    }
}

/// What the object uses more than the one before it.
fn increase(attributes: &Attributes<'_>) -> ResourceList {
    let mut more = quota::usage(attributes.resource(), &attributes.object);
    if let Some(old) = attributes.old {
        for (name, amount) in quota::usage(attributes.resource(), old) {
            *more.entry(name).or_default() -= amount;
        }
    }
    more
}

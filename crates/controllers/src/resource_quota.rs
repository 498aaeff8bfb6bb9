//! Keeps `status` of ResourceQuotas: what a namespace uses, counted from what is there (RTC-24).
//!
//! Admission takes room in `status.used` when something is created; this gives it back when pods end or go, and
//! corrects what went wrong in between. A write that admission made meanwhile wins: then it is counted again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use sampan_api::{quota, resources, scheme};
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::feed::{Change, Feeds};
use crate::kinds;
use crate::reconcile::{self, Next};

/// How often kinds other than pods are counted again: they are not watched for this.
const RECOUNT: Duration = Duration::from_secs(60);

/// The names of the quotas of each namespace that has some.
type Known = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

/// Runs the controller.
pub(crate) fn run(client: Client, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let known = Known::default();
    let lock = |known: &Known| known.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let noted = known.clone();
    let quotas = feeds.subscribe("", "resourcequotas").filter_map(move |change| {
        let mut all = noted.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = match change {
            Change::Set(quota) => {
                let namespace = quota.metadata.namespace.clone().unwrap_or_default();
                let name = quota.metadata.name.clone().unwrap_or_default();
                all.entry(namespace.clone()).or_default().insert(name);
                Some(namespace)
            }
            Change::Gone(key, _) => {
                if let Some(names) = all.get_mut(&key.namespace) {
                    names.remove(&key.name);
                    if names.is_empty() {
                        all.remove(&key.namespace);
                    }
                }
                None
            }
            Change::Listed => None,
        };
        async move { namespace }
    });
    let with_quotas = known.clone();
    let pods = feeds.subscribe("", "pods").filter_map(move |change| {
        let namespace = match change {
            Change::Set(pod) => pod.metadata.namespace.clone(),
            Change::Gone(key, _) => Some(key.namespace),
            Change::Listed => None,
        };
        let counts = namespace.filter(|namespace| lock(&with_quotas).contains_key(namespace));
        async move { counts }
    });
    reconcile::run("resource quota", stream::select(quotas, pods), move |namespace: String| {
        let client = client.clone();
        async move { count_all(&client, &namespace).await }
    })
}

/// Counts for every quota of a namespace.
async fn count_all(client: &Client, namespace: &str) -> Result<Next, kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "resourcequotas"), namespace);
    let mut next = Next::Wait;
    for mut found in api.list(&ListParams::default()).await? {
        let Ok(object) = serde_json::to_value(&found) else { continue };
        let (used, only_pods) = count(client, namespace, &object).await?;
        if !only_pods {
            next = Next::After(RECOUNT);
        }
        let status =
            json!({"hard": resources::to_value(&quota::hard(&object)), "used": resources::to_value(&used)});
        if found.data["status"] != status {
            found.data["status"] = status;
            let name = found.metadata.name.clone().unwrap_or_default();
            kinds::or_gone(api.replace_status(&name, &PostParams::default(), &found).await)?;
        }
    }
    Ok(next)
}

/// What the quota's namespace uses, and whether only pods had to be looked at.
async fn count(
    client: &Client,
    namespace: &str,
    object: &Value,
) -> Result<(resources::ResourceList, bool), kube::Error> {
    let hard = quota::hard(object);
    let mut used: resources::ResourceList =
        hard.keys().map(|name| (name.clone(), Default::default())).collect();
    let mut only_pods = true;
    let countable = scheme::resources().iter().filter(|resource| resource.namespaced && resource.is_stored());
    for resource in countable.filter(|resource| quota::may_count(resource, &hard)) {
        only_pods &= resource.group.is_empty() && resource.plural == "pods";
        let api = kinds::api::<DynamicObject>(client, resource, namespace);
        for found in api.list(&ListParams::default()).await? {
            let Ok(found) = serde_json::to_value(&found) else { continue };
            if quota::in_scope(object, resource, &found) {
                resources::add(&mut used, &quota::mask(&quota::usage(resource, &found), &hard));
            }
        }
    }
    Ok((used, only_pods))
}

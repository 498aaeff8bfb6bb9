//! Where Services lead: EndpointSlices, and the older Endpoints beside them, from the pods that a selector selects.

mod address;
mod mirror;
mod slice;
mod subset;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, stream};
use kube::Client;
use kube::core::DynamicObject;
use serde_json::Value;
use tokio_stream::wrappers::BroadcastStream;

use crate::feed::{Change, Feeds, Key};
use crate::kinds;
use crate::pods::{PodChange, PodIndex};
use crate::reconcile::{self, Next};

/// The selectors of all Services that have one.
#[derive(Clone, Default)]
struct Selectors(Arc<Mutex<HashMap<Key, BTreeMap<String, String>>>>);

impl Selectors {
    fn set(&self, key: &Key, selector: BTreeMap<String, String>) {
        let mut selectors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if selector.is_empty() {
            selectors.remove(key);
        } else {
            selectors.insert(key.clone(), selector);
        }
    }

    /// The Services that a change of a pod concerns; all of them when it is not known which pod changed.
    fn concerned(&self, change: Option<&PodChange>) -> Vec<Key> {
        let selectors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = change.map(|change| change.before.iter().chain(&change.now).collect::<Vec<_>>());
        let concerned = selectors.iter().filter(|(key, selector)| match &pods {
            Some(pods) if !pods.is_empty() => {
                pods.iter().any(|pod| pod.namespace == key.namespace && selects(selector, &pod.labels))
            }
            _ => true,
        });
        concerned.map(|(key, _)| key.clone()).collect()
    }
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A Service's `spec.selector`.
fn selector(service: &DynamicObject) -> BTreeMap<String, String> {
    let pairs = service.data.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// Runs the controller.
pub(crate) fn run(client: Client, pods: PodIndex, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let selectors = Selectors::default();
    let of_services = selectors.clone();
    let services = feeds.subscribe("", "services").filter_map(move |change| {
        let key = match change {
            Change::Set(service) => {
                let key = Key::of(&service.metadata);
                of_services.set(&key, selector(&service));
                Some(key)
            }
            Change::Gone(key, _) => {
                of_services.set(&key, BTreeMap::new());
                Some(key)
            }
            Change::Listed => None,
        };
        std::future::ready(key)
    });
    // What people write for Services without a selector is mirrored.
    let written = feeds.subscribe("", "endpoints").filter_map(|change| {
        std::future::ready(match change {
            Change::Set(endpoints) => Some(Key::of(&endpoints.metadata)),
            Change::Gone(key, _) => Some(key),
            Change::Listed => None,
        })
    });
    let services = stream::select(services, written);
    let changes = BroadcastStream::new(pods.changes());
    let of_pods = changes.flat_map(move |change| stream::iter(selectors.concerned(change.ok().as_ref())));
    reconcile::run("endpoints", stream::select(services, of_pods), move |key: Key| {
        let (client, pods) = (client.clone(), pods.clone());
        async move { sync(&client, &pods, &key).await }
    })
}

/// Brings the slices and the Endpoints of one Service in order.
async fn sync(client: &Client, pods: &PodIndex, key: &Key) -> Result<Next, kube::Error> {
    let api = kinds::api::<DynamicObject>(client, kinds::find("", "services"), &key.namespace);
    let Some(service) = api.get_opt(&key.name).await? else {
        // The garbage collector takes the slices, which the Service owns.
        subset::delete(client, key).await?;
        return Ok(Next::Wait);
    };
    let selector = selector(&service);
    if selector.is_empty() && service.metadata.deletion_timestamp.is_none() {
        mirror::sync(client, key).await?;
        return Ok(Next::Wait);
    }
    if service.metadata.deletion_timestamp.is_some() || !pods.listed() {
        return Ok(Next::Wait);
    }
    let mut selected = pods.in_namespace(&key.namespace);
    selected.retain(|pod| selects(&selector, &pod.labels));
    slice::sync(client, &service, &selected).await?;
    subset::sync(client, &service, &selected).await?;
    Ok(Next::Wait)
}

//! Every namespace has the ServiceAccount `default`.

use futures::{Stream, StreamExt, stream};
use kube::Client;
use kube::api::PostParams;
use serde_json::json;

use crate::feed::{Change, Feeds};
use crate::kinds;
use crate::namespace::{active, is_active};
use crate::reconcile::{self, Next};

const NAME: &str = "default";

/// Runs the controller: when a namespace comes, and when its account was deleted.
pub(crate) fn run(client: Client, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let accounts = kinds::find("", "serviceaccounts");
    let namespaces = active(feeds.subscribe("", "namespaces"));
    let deleted = gone(feeds.subscribe_to(accounts, "", "metadata.name=default"));
    reconcile::run("service account", stream::select(namespaces, deleted), move |namespace: String| {
        let client = client.clone();
        async move {
            if !is_active(&client, &namespace).await? {
                return Ok(Next::Wait);
            }
            let api = kinds::api(&client, accounts, &namespace);
            let account = kinds::object(accounts, &namespace, NAME, json!({}));
            match api.create(&PostParams::default(), &account).await {
                Err(error) if kinds::code(&error) != 409 => Err(error),
                _ => Ok(Next::Wait),
            }
        }
    })
}

/// The namespaces of objects that are gone.
pub(crate) fn gone(changes: crate::feed::Changes) -> impl Stream<Item = String> {
    changes.filter_map(|change| async move {
        match change {
            Change::Gone(key, _) => Some(key.namespace),
            Change::Set(_) | Change::Listed => None,
        }
    })
}

//! Every namespace has the ConfigMap `kube-root-ca.crt`, by which pods trust the API server.

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::json;

use crate::feed::{Change, Feeds};
use crate::kinds;
use crate::namespace::{active, is_active};
use crate::reconcile::{self, Next};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

/// Runs the controller: when a namespace comes, and when its ConfigMap was changed or deleted.
pub(crate) fn run(client: Client, ca_pem: String, feeds: &mut Feeds) -> impl Future<Output = ()> + use<> {
    let maps = kinds::find("", "configmaps");
    let namespaces = active(feeds.subscribe("", "namespaces"));
    let changed = feeds.subscribe_to(maps, "", "metadata.name=kube-root-ca.crt");
    let changed = changed.filter_map(|change| async move {
        match change {
            Change::Set(object) => object.metadata.namespace.clone(),
            Change::Gone(key, _) => Some(key.namespace),
            Change::Listed => None,
        }
    });
    reconcile::run("root CA", stream::select(namespaces, changed), move |namespace: String| {
        let (client, ca_pem) = (client.clone(), ca_pem.clone());
        async move {
            let api = kinds::api::<DynamicObject>(&client, maps, &namespace);
            let wanted = json!({"ca.crt": ca_pem});
            match api.get_opt(NAME).await? {
                Some(found) if found.data["data"] == wanted => {}
                Some(_) => {
                    let patch = Patch::Merge(json!({"data": wanted}));
                    kinds::or_gone(api.patch(NAME, &PatchParams::default(), &patch).await)?;
                }
                None if is_active(&client, &namespace).await? => {
                    let mut map = kinds::object(maps, &namespace, NAME, json!({"data": wanted}));
                    let note = ("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned());
                    map.metadata.annotations = Some([note].into());
                    api.create(&PostParams::default(), &map).await?;
                }
                None => {}
            }
            Ok(Next::Wait)
        }
    })
}

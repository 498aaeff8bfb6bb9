//! A pod's ServiceAccount, for plugins that trade its token for a registry credential (`tokenAttributes`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;

use crate::context::NodeContext;
use crate::{pod_ref, token_request};

/// Which account it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The account with what plugins may be told about it.
pub(super) struct Described {
    pub(super) account: Account,
    pub(super) annotations: BTreeMap<String, String>,
}

/// The pod's account; `None` when the pod has none.
pub(super) async fn describe(ctx: &NodeContext, pod: &Pod) -> Result<Option<Described>, String> {
    let name = pod_ref::spec(pod).service_account_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let namespace = pod_ref::namespace(pod);
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.config.client.clone(), namespace);
    let account =
        accounts.get(name).await.map_err(|error| format!("ServiceAccount {namespace}/{name}: {error}"))?;
    Ok(Some(Described {
        account: Account {
            uid: account.metadata.uid.unwrap_or_default(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        annotations: account.metadata.annotations.unwrap_or_default(),
    }))
}

/// A token of the account for `audience`, bound to the pod.
pub(super) async fn token(
    ctx: &NodeContext,
    pod: &Pod,
    account: &Account,
    audience: &str,
) -> Result<String, String> {
    let failed = |error| format!("token of ServiceAccount {}/{}: {error}", account.namespace, account.name);
    let status = token_request::request(&ctx.config.client, pod, &account.name, Some(audience), None)
        .await
        .map_err(failed)?;
    status.token.ok_or_else(|| "the TokenRequest was answered without a token".to_owned())
}

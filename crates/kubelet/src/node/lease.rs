//! The node's Lease: renewed in a quarter of its time (10 s), it tells the control plane that the node is alive.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::context::NodeContext;

const NAMESPACE: &str = "kube-node-lease";
const RETRY: Duration = Duration::from_secs(1);

/// Renews the Lease until it is aborted.
pub(crate) async fn renew(ctx: Arc<NodeContext>) {
    let leases: Api<Lease> = Api::namespaced(ctx.config.client.clone(), NAMESPACE);
    let name = &ctx.config.node_name;
    let valid = ctx.config.node_lease_duration_seconds.max(1);
    let period = Duration::from_secs(u64::from(valid.unsigned_abs())) / 4;
    loop {
        let now = MicroTime(ctx.config.clock.now());
        let patch =
            json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": valid, "renewTime": now}});
        let renewed = match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = new_lease(&ctx, now).await;
                leases.create(&PostParams::default(), &lease).await.map(drop)
            }
            other => other.map(drop),
        };
        match renewed {
            Ok(()) => tokio::time::sleep(period).await,
            Err(error) => {
                tracing::debug!(%error, "lease not renewed yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn new_lease(ctx: &NodeContext, now: MicroTime) -> Lease {
    let name = ctx.config.node_name.clone();
    let node = Api::<Node>::all(ctx.config.client.clone()).get_opt(&name).await.ok().flatten();
    // With the node goes its lease.
    let owner = node.and_then(|node| node.metadata.uid).map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }]
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(ctx.config.node_lease_duration_seconds.max(1)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

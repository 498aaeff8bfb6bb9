//! ClusterTrustBundleAttest: who writes the certificates of a signer must be permitted to attest for that signer, by the
//! verb `attest` on `signers` of certificates.k8s.io (KEP-3257).

use async_trait::async_trait;
use sampan_api::{Status, meta};

use super::{Attributes, Operation, Plugin};
use crate::authorization;

const GROUP: &str = "certificates.k8s.io";
const SIGNER: &str = "/spec/signerName";

pub(super) struct ClusterTrustBundleAttest;

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resource = attributes.resource();
        let concerns = resource.group == GROUP && resource.plural == "clustertrustbundles";
        let unchanged = attributes.old.is_some_and(|old| old["spec"] == attributes.object["spec"]);
        if !concerns || attributes.operation == Operation::Delete || unchanged {
            return Ok(());
        }
        // Validation has seen to it that a signer never changes.
        let signer = meta::str_at(&attributes.object, SIGNER);
        if signer.is_empty() || may_attest(attributes, signer).await {
            return Ok(());
        }
        Err(attributes.forbidden(format!("user not permitted to attest for signerName {signer:?}")))
    }
}

/// For this signer, or for all of its domain (`example.com/*`).
async fn may_attest(attributes: &Attributes<'_>, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let ask = authorization::Attributes {
            is_resource: true,
            verb: "attest",
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..authorization::Attributes::default()
        };
        let scope = attributes.scope;
        if scope.server.authorization.check(&scope.context.user, &ask).await.is_allowed() {
            return true;
        }
    }
    false
}

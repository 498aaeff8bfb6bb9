//! The file of a `clusterTrustBundle` source (KEP-3257, ENV-49): the certificates of one ClusterTrustBundle, or of all of a
//! signer's that have the labels. Each certificate is there once; their order says nothing and, so that a file changes only
//! with its certificates, is that of their bytes.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use sampan_api::pem;
use sampan_api::selector::LabelSelector;

use crate::objects::Bundles;

const CERTIFICATE: &str = "CERTIFICATE";

/// The file's content; it is empty where the source is `optional` and nothing is there.
///
/// # Errors
/// The text after `MountVolume.SetUp failed for volume "v" : `.
pub(super) fn of(source: &ClusterTrustBundleProjection, bundles: &Bundles) -> Result<Vec<u8>, String> {
    let optional = source.optional == Some(true);
    let chosen: Vec<&ClusterTrustBundle> = match (&source.name, &source.signer_name) {
        (Some(name), _) => match bundles.get(name) {
            Some(bundle) => vec![bundle],
            None if optional => Vec::new(),
            None => return Err(format!("clustertrustbundle.certificates.k8s.io {name:?} not found")),
        },
        (None, Some(signer)) => {
            let chosen = of_signer(signer, source, bundles)?;
            if chosen.is_empty() && !optional {
                return Err(
                    "combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned()
                );
            }
            chosen
        }
        (None, None) => return Err("either name or signerName must be specified".to_owned()),
    };
    let certificates: BTreeSet<Vec<u8>> = chosen
        .into_iter()
        .flat_map(|bundle| pem::blocks(&bundle.spec.trust_bundle))
        .map(|block| block.content)
        .collect();
    Ok(certificates.iter().map(|content| pem::encode(CERTIFICATE, content)).collect::<String>().into_bytes())
}

/// Without a selector there are none, with an empty one all.
fn of_signer<'a>(
    signer: &str,
    source: &ClusterTrustBundleProjection,
    bundles: &'a Bundles,
) -> Result<Vec<&'a ClusterTrustBundle>, String> {
    let selector = serde_json::to_value(&source.label_selector).unwrap_or_default();
    let selector = LabelSelector::from_object(Some(&selector)).map_err(|error| error.to_string())?;
    let selected = |bundle: &&ClusterTrustBundle| {
        let labels = serde_json::to_value(&bundle.metadata.labels).unwrap_or_default();
        // A bundle without labels matches what asks for none.
        let labels = labels.as_object().cloned().unwrap_or_default();
        bundle.spec.signer_name.as_deref() == Some(signer) && selector.matches_labels(Some(&labels))
    };
    Ok(bundles.values().map(AsRef::as_ref).filter(selected).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn bundles() -> Bundles {
        let certificate = |content: &[u8]| pem::encode(CERTIFICATE, content);
        let bundle = |name: &str, signer: Option<&str>, labels: Value, text: String| {
            let mut bundle =
                json!({"metadata": {"name": name, "labels": labels}, "spec": {"trustBundle": text}});
            if let Some(signer) = signer {
                bundle["spec"]["signerName"] = json!(signer);
            }
            (name.to_owned(), Arc::new(serde_json::from_value(bundle).unwrap()))
        };
        [
            bundle("plain", None, json!({}), format!("words\n{}{}", certificate(b"b"), certificate(b"a"))),
            bundle("e.x:s:1", Some("e.x/s"), json!({"live": "yes"}), certificate(b"c") + &certificate(b"a")),
            bundle("e.x:s:2", Some("e.x/s"), json!({"live": "no"}), certificate(b"a")),
        ]
        .into()
    }

    fn anchors(source: Value) -> Result<Vec<String>, String> {
        let source = serde_json::from_value(source).unwrap();
        let text = String::from_utf8(of(&source, &bundles())?).unwrap();
        Ok(pem::blocks(&text).into_iter().map(|block| String::from_utf8(block.content).unwrap()).collect())
    }

    #[test]
    fn env_49_certificates_by_name_and_by_signer_each_once() {
        let by_name = |name: &str, optional: bool| json!({"name": name, "path": "p", "optional": optional});
        assert_eq!(anchors(by_name("plain", false)).unwrap(), ["a", "b"]);
        let missing = "clustertrustbundle.certificates.k8s.io \"none\" not found";
        assert_eq!(anchors(by_name("none", false)).unwrap_err(), missing);
        assert!(anchors(by_name("none", true)).unwrap().is_empty());
        let by_signer = |signer: &str, selector: Value| {
            anchors(json!({"signerName": signer, "labelSelector": selector, "path": "p"}))
        };
        assert_eq!(by_signer("e.x/s", json!({})).unwrap(), ["a", "c"]);
        assert_eq!(by_signer("e.x/s", json!({"matchLabels": {"live": "no"}})).unwrap(), ["a"]);
        let zero = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        assert_eq!(by_signer("e.x/other", json!({})).unwrap_err(), zero);
        assert_eq!(anchors(json!({"signerName": "e.x/s", "path": "p"})).unwrap_err(), zero);
    }
}

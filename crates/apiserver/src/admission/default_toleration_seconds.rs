//! DefaultTolerationSeconds: pods stay 5 minutes on a node that stops answering, unless they say otherwise.

use async_trait::async_trait;
use sampan_api::{Status, meta};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};

const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("pods") || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let covers = |toleration: &Value, key: &str| {
            let effect = meta::str_of(toleration, "effect");
            let named = meta::str_of(toleration, "key");
            (named == key || named.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        let have = meta::list(&attributes.object, "/spec/tolerations");
        let missing: Vec<_> = KEYS.iter().filter(|key| !have.iter().any(|have| covers(have, key))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let spec = meta::object_mut(&mut attributes.object["spec"]);
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        if !tolerations.is_array() {
            *tolerations = json!([]);
        }
        if let Some(tolerations) = tolerations.as_array_mut() {
            tolerations.extend(missing.into_iter().map(
                |key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
            ));
        }
        Ok(())
    }
}

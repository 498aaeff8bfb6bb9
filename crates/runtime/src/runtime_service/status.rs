//! Status: whether pods can be run, and what the handlers can do.

use std::collections::HashMap;

use sampan_cri::v1;
use serde_json::json;

use crate::handlers::runs_user_namespaces;
use crate::runtime::Runtime;

pub(super) async fn status(runtime: &Runtime, request: v1::StatusRequest) -> v1::StatusResponse {
    let condition = |kind: &str, problem: Option<(&str, String)>| {
        let status = problem.is_none();
        let (reason, message) = problem.unwrap_or_default();
        v1::RuntimeCondition { r#type: kind.to_owned(), status, reason: reason.to_owned(), message }
    };
    let network =
        runtime.config.network.ready().await.err().map(|message| ("NetworkPluginNotReady", message));
    let recursive_read_only_mounts = recursive_read_only();
    let surveyed = runtime.handlers.survey().await;
    let mut runtime_handlers = Vec::new();
    // RTC-21: what cannot be used is not offered; the default once more as "".
    for found in &surveyed {
        let Ok(identity) = &found.state else { continue };
        let features = v1::RuntimeHandlerFeatures {
            recursive_read_only_mounts: recursive_read_only_mounts
                && identity.as_ref().is_none_or(|identity| identity.recursive_read_only),
            user_namespaces: runs_user_namespaces(identity.as_ref()),
        };
        if found.is_default {
            runtime_handlers.insert(0, v1::RuntimeHandler { name: String::new(), features: Some(features) });
        }
        runtime_handlers.push(v1::RuntimeHandler { name: found.name.clone(), features: Some(features) });
    }
    let mut info = HashMap::new();
    if request.verbose {
        let details = json!({
            "dataDir": runtime.config.data_dir,
            "runDir": runtime.config.run_dir,
            "defaultHandler": runtime.handlers.default_name(),
            "cgroupVersion": if runtime.host.cgroups.is_v2() { 2 } else { 1 },
            "appArmor": runtime.host.apparmor.is_enabled(),
            "sandboxes": runtime.sandbox_map().len(),
            "containers": runtime.container_map().len(),
        });
        info.insert("config".to_owned(), details.to_string());
        let handlers: serde_json::Map<String, serde_json::Value> = surveyed
            .iter()
            .map(|found| {
                let state = match &found.state {
                    Ok(Some(identity)) => json!({"runs": identity.to_string()}),
                    Ok(None) => json!({"runs": concat!("sampan ", env!("CARGO_PKG_VERSION"))}),
                    Err(reason) => json!({"unavailable": reason.to_string()}),
                };
                (found.name.clone(), state)
            })
            .collect();
        info.insert("handlers".to_owned(), json!(handlers).to_string());
    }
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus {
            conditions: vec![condition("RuntimeReady", None), condition("NetworkReady", network)],
        }),
        info,
        runtime_handlers,
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    }
}

/// `mount_setattr` came with Linux 5.12.
fn recursive_read_only() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (5, 12)
}

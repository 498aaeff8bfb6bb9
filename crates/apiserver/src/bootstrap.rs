//! What every cluster has from its first second: four namespaces, the Service of the API server itself, the system
//! priority classes, and the default roles.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderMap;
use sampan_api::{Status, defaulting, meta, scheme};
use serde_json::{Value, json};

use crate::context::{RequestContext, Warnings};
use crate::query::Query;
use crate::registry::{Scope, create, update};
use crate::request_info::RequestInfo;
use crate::user::UserInfo;
use crate::{ApiServer, Error};

/// How often the Service of the API server is looked at.
const SERVICE_PERIOD: Duration = Duration::from_secs(10);

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing and corrects the endpoints of the API server.
pub(crate) async fn run(server: &Arc<ApiServer>) -> Result<(), Error> {
    for name in NAMESPACES {
        ensure(server, "", "v1", "namespaces", "", json!({"metadata": {"name": name}})).await?;
    }
    for (name, value, text) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": text});
        ensure(server, "scheduling.k8s.io", "v1", "priorityclasses", "", class).await?;
    }
    service(server).await?;
    tokio::spawn(keep_service(Arc::downgrade(server)));
    Ok(())
}

/// Brings the Service of the API server back when somebody deleted it, as upstream's reconciler does.
async fn keep_service(server: Weak<ApiServer>) {
    loop {
        tokio::time::sleep(SERVICE_PERIOD).await;
        let Some(server) = server.upgrade() else { return };
        let parts =
            [("", "v1", "services"), ("", "v1", "endpoints"), ("discovery.k8s.io", "v1", "endpointslices")];
        let mut complete = true;
        for (group, version, plural) in parts {
            let Some(resource) = scheme::find(group, version, plural) else { continue };
            let there = server.registry.get(resource, "default", "kubernetes").await;
            complete &= !matches!(there, Ok(None));
        }
        if !complete && let Err(error) = service(&server).await {
            tracing::warn!("the Service kubernetes is not restored: {error}");
        }
    }
}

async fn service(server: &Arc<ApiServer>) -> Result<(), Error> {
    let (address, port) = server.config.advertise;
    let wrong = |reason: &str| Error::Config { setting: "service CIDR", reason: reason.to_owned() };
    let first = server
        .registry
        .allocation
        .first_address()
        .ok_or_else(|| wrong("has no room for a single Service"))?;
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {
        "type": "ClusterIP", "clusterIP": first.to_string(), "clusterIPs": [first.to_string()],
        "sessionAffinity": "None", "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]}});
    ensure(server, "", "v1", "services", "default", service).await?;
    let endpoints = json!({"metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    put(server, "", "v1", "endpoints", "default", endpoints).await?;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    put(server, "discovery.k8s.io", "v1", "endpointslices", "default", slice).await
}

/// Creates an object unless it is there.
async fn ensure(
    server: &Arc<ApiServer>,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespace: &str,
    object: Value,
) -> Result<(), Error> {
    write(server, (group, version, plural), namespace, object, false).await
}

/// Creates an object, or makes the one that is there say the same.
async fn put(
    server: &Arc<ApiServer>,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespace: &str,
    object: Value,
) -> Result<(), Error> {
    write(server, (group, version, plural), namespace, object, true).await
}

async fn write(
    server: &Arc<ApiServer>,
    (group, version, plural): (&'static str, &'static str, &'static str),
    namespace: &str,
    mut object: Value,
    replace: bool,
) -> Result<(), Error> {
    let subject = format!("{plural} {}", meta::name(&object));
    let failed = |reason: String| Error::Bootstrap { subject: subject.clone(), reason };
    let resource =
        scheme::find(group, version, plural).ok_or_else(|| failed("unknown resource".to_owned()))?;
    meta::set_type(&mut object, resource);
    meta::set_metadata(&mut object, "namespace", namespace);
    defaulting::apply_defaults(resource, &mut object);
    let context = own_context(if replace { "patch" } else { "create" }, group, version, plural, namespace);
    let scope = Scope { server, context: &context, resource, namespace, subresource: "", dry_run: false };
    let name = meta::name(&object).to_owned();
    let there =
        server.registry.get(resource, namespace, &name).await.map_err(|status| failed(status.message))?;
    let outcome: Result<(), Status> = match there {
        Some(_) if !replace => Ok(()),
        Some(_) => {
            let change = |current: Option<&Value>| {
                let mut wanted = object.clone();
                if let Some(current) = current {
                    wanted["metadata"] = current["metadata"].clone();
                    meta::set_resource_version(&mut wanted, "");
                }
                Ok(wanted)
            };
            update::update(&scope, &name, false, &change).await.map(|_| ())
        }
        None => match create::create(&scope, object.clone()).await {
            Err(status) if status.reason != "AlreadyExists" => Err(status),
            _ => Ok(()),
        },
    };
    outcome.map_err(|status| failed(status.message))
}

/// The context of what the server does for itself.
fn own_context(verb: &str, group: &str, version: &str, resource: &str, namespace: &str) -> RequestContext {
    let info = RequestInfo {
        is_resource: true,
        verb: verb.into(),
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        namespace: namespace.into(),
        ..RequestInfo::default()
    };
    RequestContext {
        info: Arc::new(info),
        user: Arc::new(UserInfo::apiserver()),
        query: Arc::new(Query::default()),
        headers: Arc::new(HeaderMap::new()),
        audit_id: "bootstrap".into(),
        warnings: Warnings::default(),
    }
}

//! `sampan explain pod NS/NAME`: reads the pod's story from the API (any cluster's) and tells why it does not
//! run. The reasoning is in [`explain`](crate::explain).

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use kube::{
    Api, Client,
    api::{ListParams, LogParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use crate::{
    cli::ExplainArgs,
    explain::{Finding, SecretFact, Story, explain},
    output::{Printer, Tone},
};

/// Lines of a log that are shown.
const LOG_LINES: i64 = 8;
/// Tried in this order when nothing is said.
const KUBECONFIG: &str = "/etc/sampan/kubeconfig";

/// Exit code 1 when something keeps the pod from running.
pub(super) async fn run(args: ExplainArgs, printer: &Printer) -> Result<ExitCode> {
    if !matches!(args.kind.as_str(), "pod" | "pods" | "po") {
        bail!("`sampan explain` knows pods: sampan explain pod NAMESPACE/NAME");
    }
    let (namespace, name) = match args.name.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (args.namespace.clone(), args.name.clone()),
    };
    let client = client(args.kubeconfig.as_deref()).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let Some(pod) = pods.get_opt(&name).await.with_context(|| format!("reading pod {namespace}/{name}"))?
    else {
        return no_pod(&client, &namespace, &name, printer).await;
    };
    let story = read(&client, pod).await?;
    let node = story.pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let place = node.map_or_else(|| "on no node".to_owned(), |node| format!("on node {node}"));
    printer.line(format!("pod {namespace}/{name} is {}, {place}", story.phase()));
    let findings = explain(&story);
    if findings.is_empty() {
        printer.line("nothing keeps it from running");
        return Ok(ExitCode::SUCCESS);
    }
    for finding in &findings {
        show(finding, printer);
    }
    Ok(ExitCode::FAILURE)
}

fn show(finding: &Finding, printer: &Printer) {
    printer.line("");
    printer.line(printer.toned(Tone::Bad, &finding.what));
    for detail in &finding.details {
        printer.line(format!("  {detail}"));
    }
    for fix in &finding.fix {
        printer.line(format!("  {} {fix}", printer.toned(Tone::Good, "fix:")));
    }
}

async fn client(path: Option<&Path>) -> Result<Client> {
    // Without a provider chosen, rustls refuses to work.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = Path::new(KUBECONFIG);
    let path = match path {
        Some(path) => Some(path),
        None if std::env::var_os("KUBECONFIG").is_none() && own.exists() => Some(own),
        None => None,
    };
    let kubeconfig = match path {
        Some(path) => Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?,
        None => Kubeconfig::read().context("reading the kubeconfig (give --kubeconfig)")?,
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Gathers what the API tells. What we may not read is left out: the rest is still worth telling.
async fn read(client: &Client, pod: Pod) -> Result<Story> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let mut story =
        Story { events: events(client, &namespace, &name, Some(&uid)).await, pod, ..Story::default() };
    let spec = story.pod.spec.clone().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    for reference in spec.image_pull_secrets.iter().flatten().filter(|reference| !reference.name.is_empty()) {
        let fact = match secrets.get_opt(&reference.name).await {
            Ok(Some(secret)) => fact(&secret),
            Ok(None) => SecretFact::Missing,
            Err(_) => SecretFact::Unknown,
        };
        story.pull_secrets.insert(reference.name.clone(), fact);
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    for claim in spec.volumes.iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        if let Ok(found) = claims.get_opt(&claim.claim_name).await {
            let phase = found.map(|claim| claim.status.and_then(|status| status.phase).unwrap_or_default());
            story.claims.insert(claim.claim_name.clone(), phase);
        }
    }
    story.logs = last_words(client, &story.pod).await;
    Ok(story)
}

async fn events(client: &Client, namespace: &str, name: &str, uid: Option<&str>) -> Vec<Event> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let selector = match uid {
        Some(uid) => format!("involvedObject.name={name},involvedObject.uid={uid}"),
        None => format!("involvedObject.name={name}"),
    };
    let mut found = match events.list(&ListParams::default().fields(&selector)).await {
        Ok(list) => list.items,
        Err(_) => Vec::new(),
    };
    found.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
    found
}

/// The type, and the registries of the entries; nothing else of the content.
fn fact(secret: &Secret) -> SecretFact {
    let kind = secret.type_.clone().unwrap_or_else(|| "Opaque".to_owned());
    let of = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key))?;
        serde_json::from_slice::<Value>(&bytes.0).ok()
    };
    let auths =
        of(".dockerconfigjson").and_then(|config| config.get("auths").cloned()).or_else(|| of(".dockercfg"));
    let registries =
        auths.as_ref().and_then(Value::as_object).into_iter().flat_map(|auths| auths.keys().cloned());
    SecretFact::Present { kind, registries: registries.collect() }
}

/// The ends of the logs of containers that ended badly.
async fn last_words(client: &Client, pod: &Pod) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let status = pod.status.clone().unwrap_or_default();
    let mut logs = BTreeMap::new();
    for status in status
        .init_container_statuses
        .into_iter()
        .flatten()
        .chain(status.container_statuses.into_iter().flatten())
    {
        let failed = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
            state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code != 0)
        };
        let now = failed(status.state.as_ref());
        if !now && !failed(status.last_state.as_ref()) {
            continue;
        }
        // While it waits for its restart the last run is the current log.
        let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        let params = LogParams {
            container: Some(status.name.clone()),
            previous: !now && !waits,
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(4_096),
            ..LogParams::default()
        };
        if let Ok(log) = pods.logs(&name, &params).await
            && !log.trim().is_empty()
        {
            logs.insert(status.name, log.trim_end().to_owned());
        }
    }
    logs
}

/// There is no such pod: perhaps because its workload was refused one.
async fn no_pod(client: &Client, namespace: &str, name: &str, printer: &Printer) -> Result<ExitCode> {
    printer.line(format!("there is no pod {name} in namespace {namespace}"));
    let all: Api<Event> = Api::namespaced(client.clone(), namespace);
    let refused = all.list(&ListParams::default().fields("reason=FailedCreate")).await.map(|list| list.items);
    let about = |event: &Event| {
        let object = event.involved_object.name.clone().unwrap_or_default();
        !object.is_empty() && (object.starts_with(name) || name.starts_with(&object))
    };
    for event in refused.unwrap_or_default().into_iter().filter(about) {
        let kind = event.involved_object.kind.unwrap_or_default();
        let object = event.involved_object.name.unwrap_or_default();
        show(
            &Finding {
                what: format!("{kind} {object} may not create its pods"),
                details: event.message.into_iter().collect(),
                fix: vec![
                    "admission refuses them: change the template, or what the message names".to_owned(),
                ],
            },
            printer,
        );
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let alike: Vec<String> = match pods.list(&ListParams::default()).await {
        Ok(list) => list
            .items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .filter(|pod| pod.starts_with(name))
            .collect(),
        Err(_) => Vec::new(),
    };
    if !alike.is_empty() {
        printer.line(format!("there are: {}", alike.join(", ")));
    }
    Ok(ExitCode::FAILURE)
}

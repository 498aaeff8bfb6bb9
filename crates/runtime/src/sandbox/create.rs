//! RunPodSandbox: the hot path of every pod start. Work that does not depend on each other runs at the same
//! time: the shim is started while the files, the shared memory and the cgroup are made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sampan_cri::v1::{self, ContainerEventType, NamespaceMode};
use sampan_shim::client::{Shim, SpawnOptions};
use sampan_shim::protocol::{self, CreateSandbox};
use tonic::Status;

use super::{Sandbox, files, host_network, namespace_options};
use crate::network::{NetworkRequest, chain};
use crate::runtime::Runtime;
use crate::state::{SandboxRecord, SandboxState};
use crate::{exits, ids, time, user_namespace};

/// The kernel's bound of a hostname (ENV-10 is the kubelet's).
const MAX_HOSTNAME: usize = 64;

/// Makes a sandbox and gives its id; after a failure nothing of it is left.
pub(crate) async fn run(
    runtime: &Arc<Runtime>,
    config: v1::PodSandboxConfig,
    handler: String,
) -> Result<String, Status> {
    validate(&config)?;
    let selected = runtime.handlers.select(&handler).await?;
    if user_namespace::wanted(&config).is_some() && !selected.user_namespaces {
        let name = if handler.is_empty() { runtime.handlers.default_name() } else { handler };
        return Err(Status::failed_precondition(format!(
            "the runtime for {name:?} cannot run pods in user namespaces here (hostUsers: false)"
        )));
    }
    let metadata = config.metadata.clone().unwrap_or_default();
    let id = ids::sandbox();
    let name = format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt);
    runtime.reserve(&name, &id)?;
    let wanted_parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()).unwrap_or_default();
    let cgroup_parent = cgroup_parent(wanted_parent, &id);
    let mut record = SandboxRecord {
        id: id.clone(),
        config,
        runtime_handler: handler,
        created_at: time::now(),
        state: SandboxState::Creating,
        namespaces: protocol::Sandbox::default(),
        ips: Vec::new(),
        cgroup_parent,
        own_cgroups: Vec::new(),
        oci: Some(selected.oci),
        passed_annotations: selected.annotations,
    };
    match build(runtime, &mut record).await {
        Ok(shim) => {
            let sandbox = Arc::new(Sandbox::new(record, Some(shim)));
            runtime.sandbox_map().insert(id.clone(), Arc::clone(&sandbox));
            exits::watch(runtime, &sandbox);
            runtime.publish(&sandbox, &id, ContainerEventType::ContainerCreatedEvent);
            runtime.publish(&sandbox, &id, ContainerEventType::ContainerStartedEvent);
            Ok(id)
        }
        Err(status) => {
            super::undo(runtime, &record).await;
            runtime.release(&id);
            Err(status)
        }
    }
}

fn validate(config: &v1::PodSandboxConfig) -> Result<(), Status> {
    let Some(metadata) = &config.metadata else {
        return Err(Status::invalid_argument("sandbox config must include metadata"));
    };
    if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
        return Err(Status::invalid_argument("sandbox metadata needs name, namespace and uid"));
    }
    if config.hostname.len() > MAX_HOSTNAME {
        return Err(Status::invalid_argument(format!(
            "hostname {:?} is longer than 64 bytes",
            config.hostname
        )));
    }
    user_namespace::validate(config).map_err(Status::invalid_argument)?;
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if context.is_some_and(|context| context.run_as_group.is_some() && context.run_as_user.is_none()) {
        return Err(Status::invalid_argument("run_as_group is specified without run_as_user"));
    }
    Ok(())
}

/// The parent of the containers' cgroups; a sandbox without one gets its own.
fn cgroup_parent(wanted: &str, id: &str) -> String {
    match wanted.trim_matches('/') {
        "" => own_cgroup(id),
        path => format!("/{path}"),
    }
}

/// The cgroup of a sandbox that asks for none: nothing else is in it.
pub(super) fn own_cgroup(id: &str) -> String {
    format!("/sampan/{id}")
}

async fn build(runtime: &Arc<Runtime>, record: &mut SandboxRecord) -> Result<Shim, Status> {
    runtime.moves.expect();
    let id = record.id.clone();
    let shim_dir = runtime.shim_dir(&id);
    let options =
        SpawnOptions::new(id.clone(), runtime.config.executable.clone(), shim_dir, runtime.state.exits());
    let (shim, prepared) = tokio::join!(Shim::spawn(&options), prepare(runtime, record.clone()));
    // Known before anything fails: whoever undoes this removes them.
    record.own_cgroups = prepared?;
    let shim = shim.map_err(|error| Status::internal(chain(&error)))?;

    let network = !host_network(&record.config);
    let sysctls: BTreeMap<String, String> =
        record.config.linux.iter().flat_map(|linux| linux.sysctls.clone()).collect();
    // The interface's own settings exist only once it does.
    let (late, early): (BTreeMap<_, _>, BTreeMap<_, _>) =
        sysctls.into_iter().partition(|(name, _)| name.contains(".eth0.") || name.contains("/eth0/"));
    record.namespaces = shim.create_sandbox(request(runtime, record, early)).await.map_err(|error| {
        Status::internal(format!("failed to create sandbox namespaces: {}", chain(&error)))
    })?;
    if network {
        let netns = record
            .namespaces
            .net
            .clone()
            .ok_or_else(|| Status::internal("the shim made no network namespace"))?;
        let port_mappings =
            record.config.port_mappings.iter().filter(|mapping| mapping.host_port > 0).cloned().collect();
        let metadata = record.config.metadata.clone().unwrap_or_default();
        let request = NetworkRequest { id: id.clone(), netns, metadata, port_mappings };
        record.ips = runtime.config.network.setup(&request).await.map_err(|error| {
            Status::internal(format!("failed to setup network for sandbox {id:?}: {error}"))
        })?;
    }
    if !late.is_empty() {
        shim.apply_sysctls(late).await.map_err(|error| Status::internal(chain(&error)))?;
    }
    record.state = SandboxState::Ready;
    runtime
        .state
        .save_sandbox(record)
        .map_err(|error| Status::internal(format!("failed to record sandbox {id:?}: {error}")))?;
    Ok(shim)
}

/// Everything that needs no shim: the record (so that a crash leaves something to clean up by), the cgroup, the
/// files. Answers with the directories of the cgroup that were made here.
async fn prepare(runtime: &Arc<Runtime>, mut record: SandboxRecord) -> Result<Vec<PathBuf>, Status> {
    let runtime = Arc::clone(runtime);
    let work = move || -> Result<Vec<PathBuf>, Status> {
        let failed = |what: &'static str| {
            move |error: std::io::Error| Status::internal(format!("failed to create sandbox {what}: {error}"))
        };
        runtime.state.save_sandbox(&record).map_err(failed("record"))?;
        record.own_cgroups = runtime.host.cgroups.create(&record.cgroup_parent).map_err(failed("cgroup"))?;
        if !record.own_cgroups.is_empty() {
            runtime.state.save_sandbox(&record).map_err(failed("record"))?;
        }
        let own_ipc = namespace_options(&record.config).ipc() != NamespaceMode::Node;
        let hostname = hostname(&runtime, &record.config);
        let dir = runtime.sandbox_dir(&record.id);
        files::create(&dir, &record.config, &runtime.config.resolv_conf, &hostname, own_ipc)
            .map_err(failed("files"))?;
        if !record.config.log_directory.is_empty() {
            std::fs::create_dir_all(&record.config.log_directory).map_err(failed("log directory"))?;
        }
        Ok(record.own_cgroups)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

fn hostname(runtime: &Runtime, config: &v1::PodSandboxConfig) -> String {
    if config.hostname.is_empty() { runtime.host.hostname.clone() } else { config.hostname.clone() }
}

/// What the shim has to make. ENV-12: a pod in the host's network keeps the host's name.
fn request(runtime: &Runtime, record: &SandboxRecord, sysctls: BTreeMap<String, String>) -> CreateSandbox {
    let options = namespace_options(&record.config);
    let mode = |mode: NamespaceMode| match mode {
        NamespaceMode::Node => protocol::NamespaceMode::Host,
        _ => protocol::NamespaceMode::Pod,
    };
    let network = mode(options.network());
    let pid = match options.pid() {
        NamespaceMode::Pod => protocol::NamespaceMode::Pod,
        NamespaceMode::Node => protocol::NamespaceMode::Host,
        NamespaceMode::Container | NamespaceMode::Target => protocol::NamespaceMode::Container,
    };
    // The pause process belongs to the pod's account.
    let cgroups = if pid == protocol::NamespaceMode::Pod {
        let pause = pause_cgroup(record);
        match runtime.host.cgroups.create(&pause) {
            Ok(_) => runtime.host.cgroups.directories(&pause),
            Err(_) => Vec::new(),
        }
    } else {
        Vec::new()
    };
    CreateSandbox {
        hostname: record.config.hostname.clone(),
        net: network,
        ipc: mode(options.ipc()),
        uts: network,
        pid,
        netns_path: None,
        sysctls,
        cgroups,
        oom_score_adj: Some(-998),
        user: user_namespace::wanted(&record.config).as_ref().map(user_namespace::mappings),
    }
}

/// The cgroup of the pause process.
pub(super) fn pause_cgroup(record: &SandboxRecord) -> String {
    format!("{}/{}", record.cgroup_parent, record.id)
}

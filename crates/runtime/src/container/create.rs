//! CreateContainer: the root file system is mounted and the specification written; nothing runs yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampan_cri::v1::{self, ContainerEventType};
use tonic::Status;

use super::Container;
use crate::images::ImageRecord;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::spec::{self, SandboxNamespaces, SpecError};
use crate::state::{ContainerRecord, ContainerState, ContainerStatus};
use crate::user_namespace::{self, MappedIds};
use crate::{ids, signal, time};

/// Makes a container and gives its id; after a failure nothing of it is left.
pub(crate) async fn create(
    runtime: &Arc<Runtime>,
    sandbox: &Arc<Sandbox>,
    config: v1::ContainerConfig,
) -> Result<String, Status> {
    let metadata = config
        .metadata
        .clone()
        .ok_or_else(|| Status::invalid_argument("container config must include metadata"))?;
    if metadata.name.is_empty() {
        return Err(Status::invalid_argument("container metadata needs a name"));
    }
    if !config.cdi_devices.is_empty() {
        return Err(Status::unimplemented("CDI devices are not supported yet"));
    }
    if !sandbox.is_ready() {
        return Err(Status::failed_precondition(format!("sandbox {} is not running", sandbox.id)));
    }
    runtime.moves.expect();
    let wanted = config.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
    let handler = sandbox.record().runtime_handler.clone();
    let image = resolve(runtime, wanted, &handler)?;
    let volumes = volumes(runtime, &config, &handler)?;
    // From here until the snapshot's record names them, a removal of the images leaves their layers alone.
    let held: Vec<&ImageRecord> = volumes.iter().chain([&image]).map(AsRef::as_ref).collect();
    let lease = runtime.config.images.hold(&held).await;

    let id = ids::container();
    let name = format!("{}_{}_{}", metadata.name, metadata.attempt, sandbox.id);
    runtime.reserve(&name, &id)?;
    let of_sandbox = sandbox.record().clone();
    let record = ContainerRecord {
        id: id.clone(),
        sandbox_id: sandbox.id.clone(),
        image_id: image.id.to_string(),
        image_ref: image.image_ref(),
        created_at: time::now(),
        user: v1::LinuxContainerUser::default(),
        stop_signal: signal::stop_signal(config.stop_signal(), &image.config.config.stop_signal),
        cgroup: format!("{}/{id}", of_sandbox.cgroup_parent),
        log_path: log_path(&of_sandbox.config.log_directory, &config.log_path),
        runtime_handler: of_sandbox.runtime_handler,
        oci: of_sandbox.oci,
        image_mounts: (0..config.mounts.len())
            .filter(|index| config.mounts[*index].image.is_some())
            .collect(),
        status: ContainerStatus::default(),
        config,
    };
    let pid_of = target_pid(runtime, sandbox, &record.config);
    let (worker, worker_sandbox, unbuilt) = (Arc::clone(runtime), Arc::clone(sandbox), record.clone());
    let work = move || {
        let _lease = lease;
        build(&worker, &worker_sandbox, unbuilt, &image, &volumes, pid_of)
    };
    let built = tokio::task::spawn_blocking(work).await;
    match built.unwrap_or_else(|error| Err(Status::internal(error.to_string()))) {
        Ok(record) => {
            runtime.container_map().insert(id.clone(), Arc::new(Container::new(record)));
            runtime.publish(sandbox, &id, ContainerEventType::ContainerCreatedEvent);
            Ok(id)
        }
        Err(status) => {
            super::undo(runtime, &record).await;
            runtime.release(&id);
            Err(status)
        }
    }
}

/// An image that is on the node; the kubelet has pulled it.
fn resolve(runtime: &Runtime, name: &str, handler: &str) -> Result<Arc<ImageRecord>, Status> {
    let found = runtime.config.images.resolve_for(name, handler).map_err(|error| {
        Status::invalid_argument(format!("failed to resolve image {name:?}: {}", error.chain()))
    })?;
    found.ok_or_else(|| Status::not_found(format!("failed to resolve image {name:?}: image not found")))
}

/// The images that are mounted as volumes, in the order of their mounts.
fn volumes(
    runtime: &Runtime,
    config: &v1::ContainerConfig,
    handler: &str,
) -> Result<Vec<Arc<ImageRecord>>, Status> {
    let wanted = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
    // Their files are data, so the node's own platform would do; but what was pulled is the handler's.
    wanted.map(|image| resolve(runtime, &image.image, handler)).collect()
}

/// `LogDirectory/LogPath`; without either nothing is logged.
fn log_path(directory: &str, file: &str) -> Option<PathBuf> {
    (!directory.is_empty() && !file.is_empty()).then(|| Path::new(directory).join(file))
}

/// The process whose pid namespace an ephemeral container shares.
fn target_pid(
    runtime: &Runtime,
    sandbox: &Sandbox,
    config: &v1::ContainerConfig,
) -> Option<Result<i32, String>> {
    let options = namespace_options(config);
    if options.pid() != v1::NamespaceMode::Target {
        return None;
    }
    let target = runtime.container(&options.target_id).ok().filter(|target| target.sandbox_id == sandbox.id);
    Some(match target.map(|target| target.status()) {
        Some(status) if status.state == ContainerState::Running => Ok(status.pid),
        Some(_) => Err(format!("target container {:?} is not running", options.target_id)),
        None => Err(format!("invalid target container: {:?} is not in the sandbox", options.target_id)),
    })
}

fn namespace_options(config: &v1::ContainerConfig) -> v1::NamespaceOption {
    config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.clone())
        // CRI's default is the pod's pid namespace, which is there only when the sandbox was made with one.
        .unwrap_or_default()
}

/// The blocking part: snapshot, mounts, specification, record.
fn build(
    runtime: &Runtime,
    sandbox: &Sandbox,
    mut record: ContainerRecord,
    image: &ImageRecord,
    volumes: &[Arc<ImageRecord>],
    target: Option<Result<i32, String>>,
) -> Result<ContainerRecord, Status> {
    let internal = |what: &'static str| {
        move |error: std::io::Error| Status::internal(format!("failed to create container {what}: {error}"))
    };
    let bundle = runtime.bundle(&record.id);
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).map_err(internal("bundle"))?;
    let (user, ids) = {
        let sandbox = sandbox.record();
        let user = user_namespace::wanted(&sandbox.config);
        let opened = user.as_ref().zip(sandbox.namespaces.user.as_deref());
        let ids = opened.map(|(user, path)| MappedIds::open(path, user)).transpose();
        (user, ids.map_err(internal("user namespace"))?)
    };
    let snapshots = runtime.config.images.snapshots();
    let failed = |error: crate::images::ImageError| {
        Status::internal(format!("failed to create container root file system: {}", error.chain()))
    };
    let prepared = snapshots.prepare_with(&record.id, image, volumes, ids.as_ref()).map_err(failed)?;
    snapshots.mount(&prepared, &rootfs, ids.as_ref()).map_err(failed)?;
    let image_mounts = mount_images(runtime, &record, volumes, &bundle, ids.as_ref())?;

    let (config, namespaces, passed) = {
        let sandbox = sandbox.record();
        (sandbox.config.clone(), sandbox.namespaces.clone(), sandbox.passed_annotations.clone())
    };
    let invalid = |error: SpecError| match error {
        SpecError::Invalid(message) => {
            Status::invalid_argument(format!("failed to generate container spec: {message}"))
        }
        other => Status::internal(format!("failed to generate container spec: {other}")),
    };
    let namespaces =
        SandboxNamespaces::new(&namespaces, &namespace_options(&record.config), |_| match target {
            Some(Ok(pid)) => Ok(PathBuf::from(format!("/proc/{pid}/ns/pid"))),
            Some(Err(message)) => Err(SpecError::Invalid(message)),
            None => Err(SpecError::Invalid("no target container".to_owned())),
        })
        .map_err(invalid)?;
    let spec = spec::generate(&spec::Inputs {
        config: &record.config,
        sandbox: &config,
        sandbox_id: &sandbox.id,
        image: &image.config,
        rootfs: &rootfs,
        namespaces: &namespaces,
        sandbox_dir: &runtime.sandbox_dir(&sandbox.id),
        cgroups_path: &record.cgroup,
        image_mounts: &image_mounts,
        passed_annotations: &passed,
        user_namespace: user.as_ref(),
        host: &runtime.host,
    })
    .map_err(invalid)?;
    record.user = spec.user;
    let text = serde_json::to_vec(&spec.json).map_err(|error| internal("spec")(error.into()))?;
    fs::write(bundle.join("config.json"), text).map_err(internal("spec"))?;
    if let Some(directory) = record.log_path.as_ref().and_then(|path| path.parent()) {
        fs::create_dir_all(directory).map_err(internal("log directory"))?;
    }
    runtime.state.save_container(&record).map_err(internal("record"))?;
    Ok(record)
}

/// Image volumes (KEP-4639): each image is mounted read-only beside the root file system.
fn mount_images(
    runtime: &Runtime,
    record: &ContainerRecord,
    volumes: &[Arc<ImageRecord>],
    bundle: &Path,
    ids: Option<&MappedIds>,
) -> Result<Vec<(usize, PathBuf)>, Status> {
    let images = &runtime.config.images;
    let mut mounted = Vec::new();
    for (index, image) in record.image_mounts.iter().zip(volumes) {
        let mount = &record.config.mounts[*index];
        let name = mount.image.as_ref().map(|image| image.image.as_str()).unwrap_or_default();
        let target = image_mount_dir(bundle, *index);
        fs::create_dir_all(&target).map_err(|error| Status::internal(format!("image volume: {error}")))?;
        images.snapshots().mount_image(image, &target, ids).map_err(|error| {
            Status::internal(format!("failed to mount image volume {name:?}: {}", error.chain()))
        })?;
        let inside = match mount.image_sub_path.trim_matches('/') {
            "" => target,
            sub => sub_path(&target, sub).map_err(|error| {
                Status::invalid_argument(format!(
                    "image volume {name:?} has no directory {:?}: {}",
                    mount.image_sub_path,
                    chain(&error)
                ))
            })?,
        };
        mounted.push((*index, inside));
    }
    Ok(mounted)
}

/// Where an image volume is mounted on the host.
pub(super) fn image_mount_dir(bundle: &Path, index: usize) -> PathBuf {
    bundle.join("images").join(index.to_string())
}

/// A directory inside an image: links are followed inside it only.
fn sub_path(root: &Path, sub: &str) -> std::io::Result<PathBuf> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, root, flags, Mode::empty())?;
    let found = crate::in_root::open(&dir, sub, flags)?;
    fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found)))
}

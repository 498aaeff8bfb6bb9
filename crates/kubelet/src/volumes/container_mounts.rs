//! What is mounted into one container: its volumes, `/etc/hosts`, the termination message file.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use sampan_cri::v1;

use super::{PodVolumes, sub_path};
use crate::generate::expansion::expand;
use crate::pod_ref;

/// What a container's mounts are made from.
pub(crate) struct MountInputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    /// Which run of it they are for.
    pub(crate) restart_count: u32,
    pub(crate) volumes: &'a PodVolumes,
    pub(crate) pod_dir: &'a Path,
    /// For `subPathExpr`.
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) hosts_file: Option<&'a Path>,
    /// The images of image volumes, by volume.
    pub(crate) images: &'a BTreeMap<String, v1::ImageSpec>,
    /// Whether the runtime makes mounts read-only with everything that is mounted in them.
    pub(crate) recursive_read_only: bool,
}

/// Makes the mounts of a container.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub(crate) fn mounts(inputs: &MountInputs<'_>) -> Result<Vec<v1::Mount>, String> {
    let MountInputs { pod, container, volumes, pod_dir, environment, .. } = *inputs;
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if let Some(image) = inputs.images.get(&mount.name) {
            mounts.push(image_mount(mount, image, environment)?);
            continue;
        }
        let volume = volumes.path(&mount.name).ok_or_else(|| {
            format!("volume {:?} of container {:?} is not mounted", mount.name, container.name)
        })?;
        let source = pod_ref::spec(pod).volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let has_content = source.is_some_and(super::has_content);
        let wanted = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
            Some(expression) => Some(expand_sub_path(expression, environment)?),
            None => mount.sub_path.clone().filter(|path| !path.is_empty()),
        };
        let host_path = match wanted {
            None => volume.to_owned(),
            Some(path) => {
                let target = pod_dir
                    .join("volume-subpaths")
                    .join(&mount.name)
                    .join(&container.name)
                    .join(index.to_string());
                let missing = if has_content { sub_path::Missing::Aside } else { sub_path::Missing::Made };
                sub_path::bind(volume, &path, &target, missing)?
            }
        };
        let readonly = mount.read_only == Some(true) || has_content;
        mounts.push(v1::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly,
            propagation: propagation(mount.mount_propagation.as_deref()),
            recursive_read_only: recursive_read_only(mount, inputs.recursive_read_only)?,
            ..Default::default()
        });
    }
    let mounted_at =
        |path: &str, mounts: &[v1::Mount]| mounts.iter().any(|mount| mount.container_path == path);
    // Who mounts something there wants that (ENV-15).
    if let Some(hosts) = inputs.hosts_file
        && !mounted_at("/etc/hosts", &mounts)
    {
        mounts.push(plain_mount(hosts, "/etc/hosts"));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message_path.is_empty() && !mounted_at(message_path, &mounts) {
        let file = termination_message_file(pod_dir, &container.name, inputs.restart_count)?;
        mounts.push(plain_mount(&file, message_path));
    }
    Ok(mounts)
}

/// An image's files; the runtime mounts them, read-only whatever the mount says (IMG-87).
fn image_mount(
    mount: &VolumeMount,
    image: &v1::ImageSpec,
    environment: &BTreeMap<String, String>,
) -> Result<v1::Mount, String> {
    let sub_path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand_sub_path(expression, environment)?,
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    Ok(v1::Mount {
        container_path: absolute(&mount.mount_path),
        image: Some(image.clone()),
        image_sub_path: sub_path,
        readonly: true,
        ..Default::default()
    })
}

fn plain_mount(host: &Path, container: &str) -> v1::Mount {
    v1::Mount {
        container_path: container.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mode: Option<&str>) -> i32 {
    match mode {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer as i32,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional as i32,
        _ => v1::MountPropagation::PropagationPrivate as i32,
    }
}

/// Whether what is mounted inside becomes read-only, too (ENV-54).
///
/// # Errors
/// The mount must have that, and cannot.
pub(crate) fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    let wanted = format!("volume {:?} requested recursive read-only mode", mount.name);
    match mode {
        "Disabled" => Ok(false),
        _ if mount.read_only != Some(true) => Err(format!("{wanted}, but it is not read-only")),
        _ if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) => {
            Err(format!("{wanted}, but it is not compatible with its mountPropagation"))
        }
        "IfPossible" => Ok(supported),
        _ if !supported => Err(format!("{wanted}, but it is not supported by the runtime")),
        _ => Ok(true),
    }
}

/// `subPathExpr` with the container's environment (ENV-53).
fn expand_sub_path(expression: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let path = expand(expression, |name| match environment.get(name).filter(|value| !value.is_empty()) {
        Some(value) => Some(value.clone()),
        None => {
            missing.borrow_mut().get_or_insert_with(|| format!("missing value for {name:?}"));
            None
        }
    });
    if let Some(missing) = missing.into_inner() {
        return Err(missing);
    }
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(path)
}

/// Where the last words of a run are.
fn message_file(pod_dir: &Path, container: &str, restart_count: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(restart_count.to_string())
}

/// Removes the last words of a run that the runtime has forgotten.
pub(crate) fn remove_message_file(pod_dir: &Path, container: &str, restart_count: u32) {
    let _ = std::fs::remove_file(message_file(pod_dir, container, restart_count));
}

/// A new, empty file for the container's last words, writable by any user (ENV-44). Tries at the same run have the same.
fn termination_message_file(pod_dir: &Path, container: &str, restart_count: u32) -> Result<PathBuf, String> {
    let file = message_file(pod_dir, container, restart_count);
    let make = || -> std::io::Result<()> {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        remove_message_file(pod_dir, container, restart_count);
        std::fs::File::create_new(&file)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))
    };
    make().map_err(|error| format!("termination message file {}: {error}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_53_sub_path_expressions() {
        let environment = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("E".to_owned(), String::new()),
            ("R".to_owned(), "/r".to_owned()),
            ("U".to_owned(), "..".to_owned()),
        ]);
        assert_eq!(expand_sub_path("$(A)/y", &environment).unwrap(), "x/y");
        for bad in ["$(NOPE)", "$(E)", "$(R)", "a/$(U)"] {
            assert!(expand_sub_path(bad, &environment).is_err(), "{bad}");
        }
        assert_eq!(expand_sub_path("$(NOPE)", &environment).unwrap_err(), "missing value for \"NOPE\"");
    }

    #[test]
    fn env_54_recursive_read_only_modes() {
        let mount = |mode: Option<&str>, read_only| VolumeMount {
            name: "v".into(),
            read_only: Some(read_only),
            recursive_read_only: mode.map(str::to_owned),
            ..VolumeMount::default()
        };
        for (mode, supported, answer) in [
            (None, true, Ok(false)),
            (Some("Disabled"), true, Ok(false)),
            (Some("IfPossible"), true, Ok(true)),
            (Some("IfPossible"), false, Ok(false)),
            (Some("Enabled"), true, Ok(true)),
            (Some("Enabled"), false, Err("but it is not supported by the runtime")),
        ] {
            let told = recursive_read_only(&mount(mode, true), supported);
            match answer {
                Ok(answer) => assert_eq!(told, Ok(answer), "{mode:?}"),
                Err(text) => assert!(told.unwrap_err().ends_with(text)),
            }
        }
        assert!(recursive_read_only(&mount(Some("Enabled"), false), true).is_err());
    }

    #[test]
    fn env_44_the_message_file_is_mounted_where_the_container_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let container = Container {
            name: "c".into(),
            termination_message_path: Some("/x/y".into()),
            ..Default::default()
        };
        let mounts = mounts(&MountInputs {
            pod: &Pod::default(),
            container: &container,
            restart_count: 3,
            volumes: &PodVolumes::default(),
            pod_dir: dir.path(),
            environment: &BTreeMap::new(),
            hosts_file: None,
            images: &BTreeMap::new(),
            recursive_read_only: false,
        })
        .unwrap();
        assert_eq!(mounts[0].container_path, "/x/y");
        let mode = std::fs::metadata(&mounts[0].host_path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        assert!(mounts[0].host_path.ends_with("containers/c/3"), "{}", mounts[0].host_path);
        remove_message_file(dir.path(), "c", 3);
        assert!(!Path::new(&mounts[0].host_path).exists());
    }
}

//! The files of configMap, secret, downwardAPI and projected volumes (ENV-24, ENV-26, ENV-47 to ENV-50).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};

use super::atomic_writer::{File, Files};
use super::token::Tokens;
use crate::context::NodeContext;
use crate::generate::fields::{self, Addresses};
use crate::pod_ref;

const DEFAULT_MODE: i32 = 0o644;

/// The files of `volume`.
///
/// # Errors
/// The text after `MountVolume.SetUp failed for volume "v" : `.
pub(super) async fn of_volume(
    ctx: &Arc<NodeContext>,
    pod: &Pod,
    volume: &Volume,
    tokens: &mut Tokens,
) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        config_map(ctx, pod, &source.name, source.items.as_deref(), mode, optional, &mut files).await?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(ctx, pod, name, source.items.as_deref(), mode, optional, &mut files).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward_api(ctx, pod, source.items.as_deref().unwrap_or_default(), mode, &mut files)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for (index, source) in source.sources.iter().flatten().enumerate() {
            if let Some(source) = &source.config_map {
                let optional = source.optional == Some(true);
                config_map(ctx, pod, &source.name, source.items.as_deref(), mode, optional, &mut files)
                    .await?;
            } else if let Some(source) = &source.secret {
                let optional = source.optional == Some(true);
                secret(ctx, pod, &source.name, source.items.as_deref(), mode, optional, &mut files).await?;
            } else if let Some(source) = &source.downward_api {
                downward_api(ctx, pod, source.items.as_deref().unwrap_or_default(), mode, &mut files)?;
            } else if let Some(source) = &source.service_account_token {
                let token = tokens.get(ctx, pod, (&volume.name, index), source).await?;
                let (mode, owner) = token_mode(pod, mode);
                files.insert(source.path.clone(), File { content: token.into_bytes(), mode, owner });
            } else {
                return Err("this source of a projected volume is not supported by this node".to_owned());
            }
        }
    }
    Ok(files)
}

/// A token is for its container's user only: 0600 and owned by that user when all containers have the same
/// one, group-readable with an fsGroup, else the volume's mode.
fn token_mode(pod: &Pod, mode: i32) -> (u32, Option<u32>) {
    let context = pod_ref::spec(pod).security_context.as_ref();
    if context.and_then(|context| context.fs_group).is_some() {
        return (0o600, None);
    }
    let pod_user = context.and_then(|context| context.run_as_user);
    let mut users = pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)).map(|container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(pod_user)
    });
    let first = users.next().flatten();
    match first {
        Some(user) if users.all(|other| other == first) => (0o600, u32::try_from(user).ok()),
        _ => (bits(mode), None),
    }
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

async fn config_map(
    ctx: &NodeContext,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    files: &mut Files,
) -> Result<(), String> {
    let found =
        ctx.objects.config_map(pod_ref::namespace(pod), name).await.map_err(|error| error.to_string())?;
    let Some(ConfigMap { data, binary_data, .. }) = found else {
        return missing_object("configmap", name, optional);
    };
    let mut entries: Vec<(String, Vec<u8>)> =
        data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes())).collect();
    entries.extend(binary_data.into_iter().flatten().map(|(key, value)| (key, value.0)));
    project(entries, items, mode, optional, "configmap references non-existent config key", files)
}

async fn secret(
    ctx: &NodeContext,
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    files: &mut Files,
) -> Result<(), String> {
    let found = ctx.objects.secret(pod_ref::namespace(pod), name).await.map_err(|error| error.to_string())?;
    let Some(Secret { data, .. }) = found else {
        return missing_object("secret", name, optional);
    };
    let entries = data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect();
    project(entries, items, mode, optional, "references non-existent secret key", files)
}

fn missing_object(kind: &str, name: &str, optional: bool) -> Result<(), String> {
    if optional { Ok(()) } else { Err(format!("{kind} {name:?} not found")) }
}

fn project(
    entries: Vec<(String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    missing_key: &str,
    files: &mut Files,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, content) in entries {
            files.insert(key, File { content, mode: bits(mode), owner: None });
        }
        return Ok(());
    };
    for item in items {
        match entries.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => {
                let file =
                    File { content: content.clone(), mode: bits(item.mode.unwrap_or(mode)), owner: None };
                files.insert(item.path.clone(), file);
            }
            None if optional => {}
            None => return Err(format!("{missing_key}: {}", item.key)),
        }
    }
    Ok(())
}

fn downward_api(
    ctx: &NodeContext,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    let addresses = Addresses { pod_ips: Vec::new(), host_ips: ctx.host_ips.clone() };
    for item in items {
        let value = if let Some(selector) = &item.field_ref {
            fields::field(pod, selector, &addresses)?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(pod, selector, None, &ctx.allocatable)?
        } else {
            continue;
        };
        let file = File { content: value.into_bytes(), mode: bits(item.mode.unwrap_or(mode)), owner: None };
        files.insert(item.path.clone(), file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.into(), path: path.into(), mode }
    }

    #[test]
    fn env_26_47_48_keys_become_files() {
        let entries = || vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let mut all = Files::new();
        project(entries(), None, 0o640, false, "x", &mut all).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all["a"].mode, 0o640);
        let mut some = Files::new();
        let items = [key("a", "dir/file", Some(0o400))];
        project(entries(), Some(&items), 0o640, false, "x", &mut some).unwrap();
        assert_eq!((some.len(), some["dir/file"].mode), (1, 0o400));
        let missing = [key("z", "z", None)];
        let error =
            project(entries(), Some(&missing), 0o640, false, "references non-existent secret key", &mut some);
        assert_eq!(error.unwrap_err(), "references non-existent secret key: z");
        assert!(project(entries(), Some(&missing), 0o640, true, "x", &mut some).is_ok());
    }
}

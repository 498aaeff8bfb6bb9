//! The files of configMap, secret, downwardAPI and projected volumes (ENV-24, ENV-26, ENV-47 to ENV-50).

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};
use tokio::sync::Notify;

use super::atomic_writer::{File, Files};
use super::token::Tokens;
use super::{trust_anchors, unsupported};
use crate::context::NodeContext;
use crate::generate::fields::{self, Addresses};
use crate::objects::{Followed, FollowedBundles};
use crate::pod_ref;

const DEFAULT_MODE: i32 = 0o644;

/// Where the content of one pod's volumes comes from. What is not there yet is followed as well.
#[derive(Default)]
pub(super) struct Sources {
    config_maps: HashMap<String, Followed<ConfigMap>>,
    secrets: HashMap<String, Followed<Secret>>,
    /// Followed once a volume wants some of them.
    trust_bundles: Option<FollowedBundles>,
    tokens: Tokens,
    news: Arc<Notify>,
}

impl Sources {
    /// Notified when one of the followed objects changed.
    pub(super) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// When a token has to be renewed.
    pub(super) fn next_renewal(&self) -> Option<Timestamp> {
        self.tokens.next_renewal()
    }
}

/// What a volume wants of a ConfigMap or Secret.
struct Wanted<'a> {
    name: &'a str,
    /// All keys, under their own names, when there are none.
    items: Option<&'a [KeyToPath]>,
    mode: i32,
    optional: bool,
}

/// The files of `volume`.
///
/// # Errors
/// The text after `MountVolume.SetUp failed for volume "v" : `.
pub(super) async fn of_volume(
    ctx: &Arc<NodeContext>,
    pod: &Pod,
    volume: &Volume,
    sources: &mut Sources,
) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let wanted = Wanted {
            name: &source.name,
            items: source.items.as_deref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional == Some(true),
        };
        config_map(ctx, pod, sources, &wanted, &mut files).await?;
    } else if let Some(source) = &volume.secret {
        let wanted = Wanted {
            name: source.secret_name.as_deref().unwrap_or_default(),
            items: source.items.as_deref(),
            mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional == Some(true),
        };
        secret(ctx, pod, sources, &wanted, &mut files).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward_api(ctx, pod, source.items.as_deref().unwrap_or_default(), mode, &mut files)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for (index, projection) in source.sources.iter().flatten().enumerate() {
            let at = (volume.name.as_str(), index);
            project_source(ctx, pod, sources, at, projection, mode, &mut files).await?;
        }
    }
    Ok(files)
}

/// One source of a projected volume (ENV-49).
async fn project_source(
    ctx: &Arc<NodeContext>,
    pod: &Pod,
    sources: &mut Sources,
    at: (&str, usize),
    projection: &VolumeProjection,
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    if let Some(source) = &projection.config_map {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        config_map(ctx, pod, sources, &Wanted { name: &source.name, items, mode, optional }, files).await
    } else if let Some(source) = &projection.secret {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        secret(ctx, pod, sources, &Wanted { name: &source.name, items, mode, optional }, files).await
    } else if let Some(source) = &projection.downward_api {
        downward_api(ctx, pod, source.items.as_deref().unwrap_or_default(), mode, files)
    } else if let Some(source) = &projection.service_account_token {
        let token = sources.tokens.get(ctx, pod, at, source).await?;
        let (mode, owner) = token_mode(pod, mode);
        files.insert(source.path.clone(), File { content: token.into_bytes(), mode, owner });
        Ok(())
    } else if let Some(source) = &projection.cluster_trust_bundle {
        let follow = || ctx.objects.trust_bundles.follow(&sources.news);
        let bundles = sources.trust_bundles.get_or_insert_with(follow).read().await?;
        let content = trust_anchors::of(source, &bundles)?;
        let (mode, owner) = token_mode(pod, mode);
        files.insert(source.path.clone(), File { content, mode, owner });
        Ok(())
    } else {
        Err(unsupported::projection(projection))
    }
}

/// A token, as what it is checked with, is for its container's user only: 0600 and owned by that user when all containers have the same
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
    sources: &mut Sources,
    wanted: &Wanted<'_>,
    files: &mut Files,
) -> Result<(), String> {
    let follow = || ctx.objects.config_maps.follow(pod_ref::namespace(pod), wanted.name, &sources.news);
    let followed = sources.config_maps.entry(wanted.name.to_owned()).or_insert_with(follow);
    let Some(found) = followed.read().await? else {
        return missing_object("configmap", wanted);
    };
    let mut entries: Vec<(&str, &[u8])> =
        found.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes())).collect();
    entries.extend(found.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), &*value.0)));
    project(&entries, wanted, "configmap references non-existent config key", files)
}

async fn secret(
    ctx: &NodeContext,
    pod: &Pod,
    sources: &mut Sources,
    wanted: &Wanted<'_>,
    files: &mut Files,
) -> Result<(), String> {
    let follow = || ctx.objects.secrets.follow(pod_ref::namespace(pod), wanted.name, &sources.news);
    let followed = sources.secrets.entry(wanted.name.to_owned()).or_insert_with(follow);
    let Some(found) = followed.read().await? else {
        return missing_object("secret", wanted);
    };
    let entries: Vec<(&str, &[u8])> =
        found.data.iter().flatten().map(|(key, value)| (key.as_str(), &*value.0)).collect();
    project(&entries, wanted, "references non-existent secret key", files)
}

fn missing_object(kind: &str, wanted: &Wanted<'_>) -> Result<(), String> {
    if wanted.optional { Ok(()) } else { Err(format!("{kind} {:?} not found", wanted.name)) }
}

fn project(
    entries: &[(&str, &[u8])],
    wanted: &Wanted<'_>,
    missing_key: &str,
    files: &mut Files,
) -> Result<(), String> {
    let Some(items) = wanted.items.filter(|items| !items.is_empty()) else {
        for (key, content) in entries {
            let mode = bits(wanted.mode);
            files.insert((*key).to_owned(), File { content: content.to_vec(), mode, owner: None });
        }
        return Ok(());
    };
    let by_key: HashMap<&str, &[u8]> = entries.iter().copied().collect();
    for item in items {
        match by_key.get(item.key.as_str()) {
            Some(content) => {
                let mode = bits(item.mode.unwrap_or(wanted.mode));
                files.insert(item.path.clone(), File { content: content.to_vec(), mode, owner: None });
            }
            None if wanted.optional => {}
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
        let entries: [(&str, &[u8]); 2] = [("a", b"1"), ("b", b"2")];
        let wanted = |items, optional| Wanted { name: "n", items, mode: 0o640, optional };
        let mut all = Files::new();
        project(&entries, &wanted(None, false), "x", &mut all).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all["a"].mode, 0o640);
        let mut some = Files::new();
        let items = [key("a", "dir/file", Some(0o400))];
        project(&entries, &wanted(Some(&items), false), "x", &mut some).unwrap();
        assert_eq!((some.len(), some["dir/file"].mode), (1, 0o400));
        let missing = [key("z", "z", None)];
        let of_secret = "references non-existent secret key";
        let error = project(&entries, &wanted(Some(&missing), false), of_secret, &mut some);
        assert_eq!(error.unwrap_err(), "references non-existent secret key: z");
        assert!(project(&entries, &wanted(Some(&missing), true), of_secret, &mut some).is_ok());
    }
}

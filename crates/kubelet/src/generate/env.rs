//! A container's environment: Services, `envFrom`, `env`, in that precedence (ENV-37 to ENV-42).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, FileKeySelector, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::env_file;
use super::expansion::expand;
use super::fields::{self, Addresses};
use crate::pod_ref;

/// The ConfigMaps and Secrets of the pod's namespace that its environment refers to, as far as they exist.
#[derive(Debug, Default)]
pub struct Sources {
    /// By name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
    /// Files of variables by volume and path, or why one cannot be read (ENV-43).
    pub files: BTreeMap<(String, String), Result<String, String>>,
}

/// The names of the objects that a container's environment needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Names of ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Names of Secrets.
    pub secrets: BTreeSet<String>,
    /// Files of variables: volume and path in it.
    pub files: BTreeSet<(String, String)>,
}

/// What `container`'s environment refers to.
#[must_use]
pub fn references(container: &Container) -> References {
    let mut references = References::default();
    for source in container.env_from.iter().flatten() {
        references.config_maps.extend(source.config_map_ref.as_ref().map(|source| source.name.clone()));
        references.secrets.extend(source.secret_ref.as_ref().map(|source| source.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        references.config_maps.extend(source.config_map_key_ref.as_ref().map(|key| key.name.clone()));
        references.secrets.extend(source.secret_key_ref.as_ref().map(|key| key.name.clone()));
        let file = source.file_key_ref.as_ref();
        references.files.extend(file.map(|file| (file.volume_name.clone(), file.path.clone())));
    }
    references
}

/// Everything beside the container itself that its environment is made from.
pub struct EnvInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Service variables (ENV-30).
    pub services: &'a BTreeMap<String, String>,
    /// Fetched ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// Pod and node addresses.
    pub addresses: &'a Addresses,
    /// The node's allocatable resources, for unset limits (ENV-23).
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// The environment of `container`.
///
/// # Errors
/// The message of the waiting reason `CreateContainerConfigError` (ENV-42).
pub fn environment(
    container: &Container,
    inputs: &EnvInputs<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut from = from_sources(container, inputs)?;
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, |name| {
                variables.get(name).or_else(|| from.get(name)).or_else(|| inputs.services.get(name)).cloned()
            })),
            (_, Some(source)) => value_from(container, source, inputs)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    let mut environment = inputs.services.clone();
    environment.append(&mut from);
    environment.append(&mut variables);
    Ok(environment)
}

fn from_sources(container: &Container, inputs: &EnvInputs<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match inputs.sources.config_maps.get(&reference.name) {
                Some(config_map) => variables.extend(
                    config_map
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
                ),
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match inputs.sources.secrets.get(&reference.name) {
                Some(secret) => variables.extend(secret.data.iter().flatten().map(|(key, value)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())
                })),
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("secret", &reference.name)),
            }
        }
    }
    Ok(variables)
}

/// The value of a `valueFrom`; `None` when it is optional and absent.
fn value_from(
    container: &Container,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
    inputs: &EnvInputs<'_>,
) -> Result<Option<String>, String> {
    let namespace = pod_ref::namespace(inputs.pod);
    if let Some(selector) = &source.field_ref {
        return fields::field(inputs.pod, selector, inputs.addresses).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(inputs.pod, selector, Some(&container.name), inputs.allocatable).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        return match inputs.sources.config_maps.get(&reference.name) {
            None if optional => Ok(None),
            None => Err(not_found("configmap", &reference.name)),
            Some(config_map) => match config_map.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    reference.key, reference.name
                )),
            },
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        return match inputs.sources.secrets.get(&reference.name) {
            None if optional => Ok(None),
            None => Err(not_found("secret", &reference.name)),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    reference.key, reference.name
                )),
            },
        };
    }
    if let Some(reference) = &source.file_key_ref {
        return from_file(reference, inputs.sources);
    }
    Ok(Some(String::new()))
}

/// A variable of a file that a container of the pod wrote (ENV-43).
fn from_file(reference: &FileKeySelector, sources: &Sources) -> Result<Option<String>, String> {
    let file = sources.files.get(&(reference.volume_name.clone(), reference.path.clone()));
    let found = match file {
        Some(Ok(text)) => env_file::value(text, &reference.key)
            .map_err(|error| format!("couldn't parse env file {:?}: {error}", reference.path))?,
        Some(Err(error)) => return Err(error.clone()),
        None => None,
    };
    match found {
        None if reference.optional != Some(true) => Err(format!(
            "environment variable key {:?} not found in file {:?}",
            reference.key, reference.path
        )),
        found => Ok(found),
    }
}

fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

#[cfg(test)]
mod tests;

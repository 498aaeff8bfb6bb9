//! `CredentialProviderConfig` (kubelet.config.k8s.io/v1): which plugins there are and what for. Whatever is
//! wrong with it keeps the kubelet from starting (IMG-75).

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::docker_config::normalise_key;
use crate::files::read_text_bounded;
use crate::go_duration;

/// Configuration files are small; a larger one is something else.
const MAX_BYTES: u64 = 1 << 20;
const API_VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
const PLUGIN_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    kind: String,
    api_version: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

/// One plugin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Provider {
    /// The program's name in the directory of plugins.
    pub(super) name: String,
    /// Keys as those of docker configurations.
    pub(super) match_images: Vec<String>,
    pub(super) default_cache_duration: Option<String>,
    /// How long answers without a duration of their own are kept.
    #[serde(skip)]
    pub(super) cache_for: Duration,
    /// The version of the requests it understands.
    pub(super) api_version: String,
    pub(super) args: Option<Vec<String>>,
    pub(super) env: Option<Vec<EnvVar>>,
    /// Set when it wants a token of the pod's ServiceAccount.
    pub(super) token_attributes: Option<TokenAttributes>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EnvVar {
    pub(super) name: String,
    pub(super) value: String,
}

/// `tokenAttributes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TokenAttributes {
    pub(super) service_account_token_audience: String,
    /// What answers are cached by.
    pub(super) cache_type: CacheType,
    /// Whether a pod without a ServiceAccount is none of the plugin's business.
    pub(super) require_service_account: Option<bool>,
    pub(super) required_service_account_annotation_keys: Vec<String>,
    pub(super) optional_service_account_annotation_keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum CacheType {
    /// Not said; refused.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// One answer per account.
    ServiceAccount,
    /// One answer per token.
    Token,
}

/// Reads the file and checks it against the directory of plugins.
pub(super) fn read(file: &Path, bin_dir: &Path) -> Result<Vec<Provider>, String> {
    let failed = |error: String| format!("credential provider config {}: {error}", file.display());
    let text = read_text_bounded(file, MAX_BYTES).map_err(|error| failed(error.to_string()))?;
    let text = text.ok_or_else(|| failed("larger than 1 MiB".to_owned()))?;
    parse(&text, bin_dir).map_err(failed)
}

fn parse(text: &str, bin_dir: &Path) -> Result<Vec<Provider>, String> {
    let mut file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if file.kind != "CredentialProviderConfig" || !API_VERSIONS.contains(&file.api_version.as_str()) {
        return Err(format!(
            "unknown kind {} {}: it must be CredentialProviderConfig of {}",
            file.api_version, file.kind, API_VERSIONS[0]
        ));
    }
    if file.providers.is_empty() {
        return Err("providers: Required value: at least 1 item in plugins is required".to_owned());
    }
    let mut names: Vec<String> = Vec::new();
    for (index, provider) in file.providers.iter_mut().enumerate() {
        check(provider, &names, bin_dir)
            .map_err(|(field, error)| format!("providers[{index}].{field}: {error}"))?;
        names.push(provider.name.clone());
    }
    Ok(file.providers)
}

type FieldError = (&'static str, String);

fn check(provider: &mut Provider, before: &[String], bin_dir: &Path) -> Result<(), FieldError> {
    let required = || "Required value".to_owned();
    let invalid = |value: &str, why: &str| format!("Invalid value: {value:?}: {why}");
    let name = provider.name.clone();
    if name.is_empty() {
        return Err(("name", required()));
    }
    if name.contains('/') {
        return Err(("name", invalid(&name, "must not contain '/'")));
    }
    if name.contains(char::is_whitespace) {
        return Err(("name", invalid(&name, "must not contain spaces")));
    }
    if name == "." || name == ".." {
        return Err(("name", invalid(&name, "must not be '.' or '..'")));
    }
    if before.contains(&name) {
        return Err(("name", format!("Duplicate value: {name:?}")));
    }
    if provider.api_version.is_empty() {
        return Err(("apiVersion", required()));
    }
    if !PLUGIN_VERSIONS.contains(&provider.api_version.as_str()) {
        let supported = PLUGIN_VERSIONS.map(|version| format!("{version:?}")).join(", ");
        let version = &provider.api_version;
        return Err(("apiVersion", format!("Unsupported value: {version:?}: supported values: {supported}")));
    }
    if provider.match_images.is_empty() {
        return Err(("matchImages", "Required value: at least 1 item in matchImages is required".to_owned()));
    }
    for pattern in &mut provider.match_images {
        if pattern.is_empty() || pattern.contains("://") || pattern.contains(char::is_whitespace) {
            return Err(("matchImages", invalid(pattern, "must be a host with an optional port and path")));
        }
        *pattern = normalise_key(pattern);
    }
    let Some(duration) = &provider.default_cache_duration else {
        return Err(("defaultCacheDuration", required()));
    };
    provider.cache_for =
        parse_duration(duration).map_err(|error| ("defaultCacheDuration", invalid(duration, &error)))?;
    if let Some(attributes) = &provider.token_attributes {
        check_attributes(attributes)?;
    }
    if !bin_dir.join(&name).is_file() {
        let path = bin_dir.join(&name);
        return Err(("name", format!("plugin binary executable {} did not exist", path.display())));
    }
    Ok(())
}

fn check_attributes(attributes: &TokenAttributes) -> Result<(), FieldError> {
    if attributes.service_account_token_audience.is_empty() {
        return Err(("tokenAttributes.serviceAccountTokenAudience", "Required value".to_owned()));
    }
    if attributes.cache_type == CacheType::Unset {
        return Err(("tokenAttributes.cacheType", "Required value".to_owned()));
    }
    if attributes.require_service_account.is_none() {
        return Err(("tokenAttributes.requireServiceAccount", "Required value".to_owned()));
    }
    let required = &attributes.required_service_account_annotation_keys;
    if attributes.require_service_account == Some(false) && !required.is_empty() {
        let field = "tokenAttributes.requiredServiceAccountAnnotationKeys";
        return Err((field, "Forbidden: requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set".to_owned()));
    }
    Ok(())
}

/// A duration in Go's notation: `12h`, `1m30s`, `0s`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    go_duration::parse(text).ok_or_else(|| "must be a duration such as 12h, 1m30s or 500ms".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: plug
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ['*.reg.io', 'reg.io:5000/team']
  defaultCacheDuration: 12h
  args: [get]
  env: [{name: A, value: b}]
";

    #[test]
    fn img_75_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let parse = |text: &str| parse(text, dir.path());
        assert!(parse(GOOD).unwrap_err().contains("plugin binary executable"));
        std::fs::write(dir.path().join("plug"), "").unwrap();
        let providers = parse(GOOD).unwrap();
        assert_eq!(providers[0].cache_for, Duration::from_secs(12 * 3_600));
        let twice = format!("{GOOD}{}", GOOD.split_once("providers:\n").unwrap().1);
        for (text, expected) in [
            (
                GOOD.split_once("- name").unwrap().0.replace("providers:", "providers: []"),
                "at least 1 item in plugins",
            ),
            (GOOD.replace("name: plug", "name: a/b"), "providers[0].name: Invalid value: \"a/b\""),
            (GOOD.replace("name: plug", "name: a b"), "must not contain spaces"),
            (GOOD.replace("['*.reg.io', 'reg.io:5000/team']", "[]"), "at least 1 item in matchImages"),
            (GOOD.replace("  defaultCacheDuration: 12h\n", ""), "defaultCacheDuration: Required value"),
            (GOOD.replace("12h", "12 parsecs"), "defaultCacheDuration: Invalid value"),
            (
                GOOD.replace("  apiVersion: credentialprovider.kubelet.k8s.io/v1\n", ""),
                "apiVersion: Required value",
            ),
            (GOOD.replace("kind: Cred", "kind: X"), "unknown kind"),
            (GOOD.replace("args: [get]", "arg: [get]"), "arg"),
            (twice, "providers[1].name: Duplicate value: \"plug\""),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}

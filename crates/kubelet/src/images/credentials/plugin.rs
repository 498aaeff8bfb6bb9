//! Credential provider plugins: programs of cloud providers that give short-lived registry credentials
//! (IMG-74). Run only for images that they are configured for, and no more often than their answers allow.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::docker_config::normalise_key;
use super::host_glob::key_matches;
use super::plugin_config::{CacheType, Provider, TokenAttributes, parse_duration};
use super::{Credential, Keyring, Login, Source, hex, program, service_account};
use crate::context::NodeContext;

/// Upstream's limit for one run.
const LIMIT: Duration = Duration::from_secs(60);

/// The plugins of the node, in the order of their configuration.
#[derive(Debug, Default)]
pub(crate) struct Plugins {
    plugins: Vec<Plugin>,
}

#[derive(Debug)]
struct Plugin {
    provider: Provider,
    program: PathBuf,
    cache: Mutex<Vec<Cached>>,
    /// One run at a time for an image and an account: those who wait share the answer. (For what it holds beyond
    /// that, only the answer tells.)
    running: Mutex<HashMap<(String, String), Weak<Run>>>,
}

/// Keys and logins.
type Entries = Arc<Vec<(String, Login)>>;
/// A run under way; the first who asks does it, and if that one is gone the next.
type Run = OnceCell<Result<Entries, String>>;

/// For whom and what an answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheKey {
    scope: Scope,
    /// The ServiceAccount (or its token's hash), when the plugin gets one.
    account: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Image(String),
    Registry(String),
    Global,
}

#[derive(Debug)]
struct Cached {
    key: CacheKey,
    until: Instant,
    entries: Entries,
}

/// `CredentialProviderResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// What a plugin is told about the pod's account.
#[derive(Default)]
struct Identity {
    account: Option<service_account::Account>,
    token: String,
    annotations: BTreeMap<String, String>,
    cache_key: String,
}

impl Plugins {
    pub(super) fn new(providers: Vec<Provider>, bin_dir: &Path) -> Self {
        let plugins = providers.into_iter().map(|provider| Plugin {
            program: bin_dir.join(&provider.name),
            provider,
            cache: Mutex::default(),
            running: Mutex::default(),
        });
        Self { plugins: plugins.collect() }
    }

    /// What the plugins for `repository` say. One that fails is logged; the pull goes on without it. Those that want
    /// a ServiceAccount are asked only with a pod.
    pub(super) async fn find(&self, pod: Option<(&NodeContext, &Pod)>, repository: &str) -> Vec<Credential> {
        let mut found = Vec::new();
        for plugin in &self.plugins {
            if !plugin.provider.match_images.iter().any(|pattern| key_matches(pattern, repository)) {
                continue;
            }
            let name = &plugin.provider.name;
            let identity = match (&plugin.provider.token_attributes, pod) {
                (None, _) => Identity::default(),
                (Some(_), None) => continue,
                (Some(attributes), Some((ctx, pod))) => match identity(ctx, pod, attributes).await {
                    Ok(Some(identity)) => identity,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(plugin = name, error, "credential provider plugin");
                        continue;
                    }
                },
            };
            match plugin.ask(repository, &identity).await {
                Ok(entries) => {
                    let source = Source::Plugin { name: name.clone(), service_account: identity.account };
                    let mut keyring = Keyring::default();
                    keyring.add_logins(&entries, &source);
                    found.extend(keyring.lookup(repository));
                }
                Err(error) => tracing::warn!(plugin = name, error, "credential provider plugin"),
            }
        }
        found
    }
}

/// The account as the plugin wants it; `None` when the plugin is not for this pod.
async fn identity(
    ctx: &NodeContext,
    pod: &Pod,
    wanted: &TokenAttributes,
) -> Result<Option<Identity>, String> {
    let Some(described) = service_account::describe(ctx, pod).await? else {
        let required = wanted.require_service_account == Some(true);
        return Ok((!required).then(Identity::default));
    };
    let mut annotations = BTreeMap::new();
    for key in &wanted.required_service_account_annotation_keys {
        let Some(value) = described.annotations.get(key) else { return Ok(None) };
        annotations.insert(key.clone(), value.clone());
    }
    for key in &wanted.optional_service_account_annotation_keys {
        if let Some(value) = described.annotations.get(key) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let account = described.account;
    let token = service_account::token(ctx, pod, &account, &wanted.service_account_token_audience).await?;
    let cache_key = match wanted.cache_type {
        CacheType::Token => hex(&Sha256::digest(token.as_bytes())),
        CacheType::ServiceAccount | CacheType::Unset => {
            format!("{}/{}/{} {annotations:?}", account.namespace, account.name, account.uid)
        }
    };
    Ok(Some(Identity { account: Some(account), token, annotations, cache_key }))
}

impl Plugin {
    async fn ask(&self, repository: &str, identity: &Identity) -> Result<Entries, String> {
        let key = (repository.to_owned(), identity.cache_key.clone());
        let run = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, run| run.strong_count() > 0);
            let found = running.get(&key).and_then(Weak::upgrade);
            found.unwrap_or_else(|| {
                let run = Arc::new(Run::new());
                running.insert(key.clone(), Arc::downgrade(&run));
                run
            })
        };
        let result = run.get_or_init(|| self.run(repository, identity)).await.clone();
        // Whoever asks from now on asks anew, or the cache.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&key).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&run))) {
            running.remove(&key);
        }
        result
    }

    async fn run(&self, repository: &str, identity: &Identity) -> Result<Entries, String> {
        if let Some(entries) = self.cached(repository, &identity.cache_key) {
            return Ok(entries);
        }
        let version = &self.provider.api_version;
        let mut request =
            json!({"kind": "CredentialProviderRequest", "apiVersion": version, "image": repository});
        if !identity.token.is_empty() {
            request["serviceAccountToken"] = identity.token.as_str().into();
            request["serviceAccountAnnotations"] = json!(identity.annotations);
        }
        let env: Vec<(String, String)> =
            self.provider.env.iter().flatten().map(|var| (var.name.clone(), var.value.clone())).collect();
        let args = self.provider.args.clone().unwrap_or_default();
        let ended = program::run(&self.program, &args, &env, request.to_string().as_bytes(), LIMIT).await?;
        if !ended.success {
            return Err(format!("it failed: {}", ended.complaint));
        }
        // The parser's words could repeat a part of the answer.
        let response: Response = serde_json::from_slice(&ended.stdout)
            .map_err(|_| "its answer is no CredentialProviderResponse".to_owned())?;
        self.take(response, repository, identity)
    }

    fn take(&self, response: Response, repository: &str, identity: &Identity) -> Result<Entries, String> {
        if response.kind != "CredentialProviderResponse" || response.api_version != self.provider.api_version
        {
            return Err(format!("it answered with {} {}", response.api_version, response.kind));
        }
        let scope = match response.cache_key_type.as_str() {
            "Image" => Scope::Image(repository.to_owned()),
            "Registry" => Scope::Registry(registry_of(repository).to_owned()),
            "Global" => Scope::Global,
            other => return Err(format!("it answered with the unknown cacheKeyType {other:?}")),
        };
        let cache_for = match &response.cache_duration {
            Some(text) => {
                parse_duration(text).map_err(|error| format!("cacheDuration of its answer {error}"))?
            }
            None => self.provider.cache_for,
        };
        let answered = response.auth.unwrap_or_default();
        // Kept for the account, it would be shown for other pods, and when the pod that it was made for is gone.
        let kept_for_account = self
            .provider
            .token_attributes
            .as_ref()
            .is_none_or(|wanted| wanted.cache_type != CacheType::Token);
        let echoes = |auth: &Auth| !identity.token.is_empty() && auth.password == identity.token;
        if kept_for_account && answered.values().any(echoes) {
            return Err(
                "it answered with the service account token as the password, which is only allowed with \
                        the cacheType \"Token\""
                    .to_owned(),
            );
        }
        let entries = answered.into_iter().map(|(key, auth)| {
            (normalise_key(&key), Login::Password { username: auth.username, password: auth.password })
        });
        let entries = Arc::new(entries.collect::<Vec<_>>());
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|cached| cached.until > now);
        if !cache_for.is_zero() {
            let key = CacheKey { scope, account: identity.cache_key.clone() };
            let until = now.checked_add(cache_for).unwrap_or(now);
            cache.push(Cached { key, until, entries: Arc::clone(&entries) });
        }
        Ok(entries)
    }

    fn cached(&self, repository: &str, account: &str) -> Option<Entries> {
        let now = Instant::now();
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |cached: &&Cached| {
            cached.until > now
                && cached.key.account == account
                && match &cached.key.scope {
                    Scope::Image(image) => image == repository,
                    Scope::Registry(registry) => registry == registry_of(repository),
                    Scope::Global => true,
                }
        };
        cache.iter().rev().find(holds).map(|cached| Arc::clone(&cached.entries))
    }
}

fn registry_of(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A plugin that notes its requests and answers with the cache key type of its first argument.
    fn plugin(dir: &Path, cache_key_type: &str, cache_duration: &str) -> Plugin {
        let program = dir.join("plug");
        let log = dir.join("log");
        let script = format!(
            r#"#!/bin/sh
cat >> {log}; echo >> {log}
echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{cache_key_type}",{cache_duration}"auth":{{"*.reg.io":{{"username":"u","password":"'$SECRET'"}}}}}}'
"#,
            log = log.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let provider = Provider {
            name: "plug".into(),
            match_images: vec!["*.reg.io".into()],
            cache_for: Duration::from_secs(60),
            api_version: "credentialprovider.kubelet.k8s.io/v1".into(),
            env: Some(vec![super::super::plugin_config::EnvVar {
                name: "SECRET".into(),
                value: "s3".into(),
            }]),
            ..Provider::default()
        };
        Plugins::new(vec![provider], dir).plugins.remove(0)
    }

    fn runs(dir: &Path) -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn img_74_plugins_are_asked_once_per_cache_key() {
        for (kind, expected) in [("Image", 3), ("Registry", 2), ("Global", 1)] {
            let dir = tempfile::tempdir().unwrap();
            let plugin = plugin(dir.path(), kind, "");
            for repository in ["a.reg.io/x", "a.reg.io/x", "a.reg.io/y", "b.reg.io/x"] {
                let entries = plugin.ask(repository, &Identity::default()).await.unwrap();
                let login = Login::Password { username: "u".into(), password: "s3".into() };
                assert_eq!(*entries, [("*.reg.io".to_owned(), login)]);
            }
            assert_eq!(runs(dir.path()).len(), expected, "{kind}");
            assert_eq!(
                runs(dir.path())[0],
                json!({"kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": "a.reg.io/x"})
            );
        }
    }

    #[tokio::test]
    async fn img_74_a_plugin_that_hangs_for_one_image_does_not_hold_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = plugin(dir.path(), "Image", "");
        let text = std::fs::read_to_string(dir.path().join("plug")).unwrap();
        // The first that runs never ends, and is the first before anybody can see that it runs.
        let first = format!("#!/bin/sh\nmkdir {}/first 2>/dev/null && hangs=1\n", dir.path().display());
        let text = text.replacen("#!/bin/sh\n", &first, 1);
        let hangs = format!("{text}[ \"$hangs\" ] && exec sleep 600\nexit 0\n");
        std::fs::write(dir.path().join("plug"), hangs).unwrap();
        let anonymous = Identity::default();
        let hanging = async {
            tokio::join!(plugin.ask("a.reg.io/slow", &anonymous), plugin.ask("a.reg.io/slow", &anonymous))
        };
        let other = async {
            // The line is whole: what comes next stands on one of its own.
            let asked = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            while !(asked().contains("slow") && asked().ends_with('\n')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (one, two) =
                tokio::join!(plugin.ask("a.reg.io/x", &anonymous), plugin.ask("a.reg.io/x", &anonymous));
            assert_eq!(one.unwrap(), two.unwrap());
        };
        tokio::select! {
            _ = hanging => panic!("it hangs"),
            () = other => {}
        }
        let mut asked: Vec<_> = runs(dir.path()).iter().map(|request| request["image"].to_string()).collect();
        asked.sort();
        assert_eq!(asked, ["\"a.reg.io/slow\"", "\"a.reg.io/x\""], "each once");
    }

    #[tokio::test]
    async fn img_74_a_duration_of_zero_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = plugin(dir.path(), "Global", r#""cacheDuration":"0s","#);
        for _ in 0..2 {
            plugin.ask("a.reg.io/x", &Identity::default()).await.unwrap();
        }
        assert_eq!(runs(dir.path()).len(), 2);
    }

    #[tokio::test]
    async fn accounts_do_not_share_answers() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = plugin(dir.path(), "Global", "");
        for account in ["a", "b", "a"] {
            let identity = Identity { cache_key: account.into(), token: "t".into(), ..Default::default() };
            plugin.ask("a.reg.io/x", &identity).await.unwrap();
        }
        assert_eq!(runs(dir.path()).len(), 2);
        assert_eq!(runs(dir.path())[0]["serviceAccountToken"], "t");
    }

    #[tokio::test]
    async fn img_74_a_token_is_no_password_for_other_pods() {
        for (cache_type, taken) in [(CacheType::ServiceAccount, false), (CacheType::Token, true)] {
            let dir = tempfile::tempdir().unwrap();
            let mut plugin = plugin(dir.path(), "Global", "");
            plugin.provider.token_attributes = Some(TokenAttributes { cache_type, ..Default::default() });
            let identity = Identity { token: "s3".into(), ..Default::default() };
            let answer = plugin.ask("a.reg.io/x", &identity).await;
            assert_eq!(answer.is_ok(), taken, "{cache_type:?}");
            assert!(answer.err().is_none_or(|error| !error.contains("s3")));
        }
    }

    #[tokio::test]
    async fn img_74_failures_say_what_happened_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = plugin(dir.path(), "Nonsense", "");
        let error = plugin.ask("a.reg.io/x", &Identity::default()).await.unwrap_err();
        assert!(error.contains("Nonsense") && !error.contains("s3"), "{error}");
    }
}

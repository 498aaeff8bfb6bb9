//! Registry credentials for a pod's image, from all sources in upstream's order (IMG-69): the pod's Secrets,
//! the node's file, the credential provider plugins. Each remembers where it came from, for the messages and
//! for the records of who may use an image; none ever shows what is secret about it.

mod docker_config;
mod helper;
mod host_glob;
mod keyring;
mod logins;
mod node_file;
mod plugin;
mod plugin_config;
mod program;
mod pull_secrets;
mod service_account;

use std::fmt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::progress::MirrorLogin;
use sampan_cri::v1;
use sha2::{Digest, Sha256};

use docker_config::DockerConfig;
pub(crate) use keyring::Keyring;
pub use logins::{Logins, RegistryLogins};
pub(crate) use node_file::{NodeFile, Signature};
pub(crate) use plugin::Plugins;
pub(crate) use pull_secrets::{PullSecrets, SecretVersion};
pub(crate) use service_account::Account;

use super::access::hex;
use super::config::ImageConfig;
use crate::context::NodeContext;

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User and password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token, as `docker-credential-*` programs give it.
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Found {
    /// Everything that proves that the pod may have the image.
    pub(crate) fn proofs(&self) -> impl Iterator<Item = &Credential> {
        self.credentials.iter().chain(self.mirrors.iter().map(|mirror| &mirror.credential))
    }
}

impl Login {
    /// What records know of it.
    pub(crate) fn hash(&self) -> String {
        let json = match self {
            Self::Password { username, password } => {
                serde_json::json!({"username": username, "password": password})
            }
            Self::IdentityToken(token) => serde_json::json!({"identityToken": token}),
        };
        hex(&Sha256::digest(json.to_string().as_bytes()))
    }

    pub(crate) fn auth_config(&self) -> v1::AuthConfig {
        match self.clone() {
            Self::Password { username, password } => {
                v1::AuthConfig { username, password, ..Default::default() }
            }
            Self::IdentityToken(identity_token) => v1::AuthConfig { identity_token, ..Default::default() },
        }
    }
}

/// Where a credential came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// One of the pod's `imagePullSecrets`.
    Secret {
        /// Its uid.
        uid: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An entry of the node's file.
    NodeFile {
        /// The file.
        path: PathBuf,
    },
    /// A `docker-credential-*` program that the node's file names.
    Helper {
        /// The program's name without its prefix.
        name: String,
    },
    /// A credential provider plugin.
    Plugin {
        /// Its name in the configuration.
        name: String,
        /// The ServiceAccount whose token it was given, if any.
        service_account: Option<Account>,
    },
}

impl Source {
    /// It came from the pod, not from the node: what it brought is not everybody's.
    pub(crate) fn is_of_the_pod(&self) -> bool {
        matches!(self, Self::Secret { .. } | Self::Plugin { service_account: Some(_), .. })
    }
}

/// A credential for some images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Host (with globs), port and path prefix, normalised.
    pub(crate) key: String,
    pub(crate) login: Login,
    pub(crate) source: Source,
}

impl fmt::Display for Credential {
    /// As error messages name it: `Secret ns/name for reg.io`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Secret { namespace, name, .. } => write!(f, "Secret {namespace}/{name} for {}", self.key),
            Source::NodeFile { path } => write!(f, "{} for {}", path.display(), self.key),
            Source::Helper { name } => write!(f, "docker-credential-{name} for {}", self.key),
            Source::Plugin { name, .. } => write!(f, "plugin {name} for {}", self.key),
        }
    }
}

/// A credential for a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MirrorCredential {
    /// `host[:port]`.
    pub(crate) host: String,
    pub(crate) credential: Credential,
}

impl MirrorCredential {
    pub(crate) fn login(&self) -> MirrorLogin {
        let host = self.host.clone();
        match self.credential.login.clone() {
            Login::Password { username, password } => {
                MirrorLogin { host, username, password, ..Default::default() }
            }
            Login::IdentityToken(identity_token) => {
                MirrorLogin { host, identity_token, ..Default::default() }
            }
        }
    }
}

/// What was found for an image.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order in which they are tried.
    pub(crate) credentials: Vec<Credential>,
    /// What the same sources have for the image's mirrors. They go to these, and the image's own only to its
    /// registry.
    pub(crate) mirrors: Vec<MirrorCredential>,
    /// What was read for it.
    pub(crate) read: Versions,
    /// `namespace/name` of Secrets that exist and say nothing about this image.
    pub(crate) without_entry: Vec<String>,
    /// `namespace/name` of Secrets that the pod names and that do not exist.
    pub(crate) missing: Vec<String>,
}

/// The sources as an attempt read them, so that a change can be seen later.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Versions {
    /// The pod's Secrets.
    pub(crate) secrets: Vec<SecretVersion>,
    /// The node's file; `None` when nothing was read.
    pub(crate) file: Option<Signature>,
}

/// The sources of the node.
#[derive(Debug)]
pub(crate) struct NodeCredentials {
    pub(crate) file: NodeFile,
    plugins: Plugins,
}

impl NodeCredentials {
    /// Reads the plugins' configuration.
    ///
    /// # Errors
    /// What is wrong with it (IMG-75).
    pub(crate) fn new(config: &ImageConfig, root: &std::path::Path) -> Result<Self, String> {
        let plugins =
            match (&config.image_credential_provider_config, &config.image_credential_provider_bin_dir) {
                (Some(file), Some(dir)) => Plugins::new(plugin_config::read(file, dir)?, dir),
                _ => Plugins::default(),
            };
        Ok(Self { file: NodeFile::new(config.credential_search_dirs.clone(), root), plugins })
    }

    /// All credentials for `repository` (normalised, without tag) and for its mirrors, the pod's own first.
    ///
    /// # Errors
    /// A Secret of the pod that cannot be read as what it claims to be (IMG-89).
    pub(crate) async fn find(
        &self,
        ctx: &NodeContext,
        pod: &Pod,
        repository: &str,
        mirrors: &[String],
    ) -> Result<Found, pull_secrets::Malformed> {
        // Before it is read: a change in between is a change.
        let file = Some(self.file.signature());
        let secrets = PullSecrets::read(ctx, pod).await;
        let mut found = Found {
            missing: secrets.missing.clone(),
            read: Versions { secrets: secrets.versions.clone(), file },
            ..Default::default()
        };
        for secret in &secrets.keyrings()? {
            if secret.keyring.lookup(repository).is_empty() {
                found.without_entry.push(secret.name.clone());
            }
        }
        let keyring = secrets.keyring()?;
        found.credentials = self.look_up(Some((ctx, pod)), &keyring, repository).await;
        for host in mirrors {
            let there = self.look_up(Some((ctx, pod)), &keyring, &at_mirror(host, repository)).await;
            let there =
                there.into_iter().map(|credential| MirrorCredential { host: host.clone(), credential });
            found.mirrors.extend(there);
        }
        Ok(found)
    }

    /// Without a pod, plugins that want its ServiceAccount are not asked.
    async fn look_up(
        &self,
        pod: Option<(&NodeContext, &Pod)>,
        secrets: &Keyring,
        repository: &str,
    ) -> Vec<Credential> {
        let mut found = secrets.lookup(repository);
        found.extend(self.file.find(repository).await);
        found.extend(self.plugins.find(pod, repository).await);
        found
    }
}

/// A repository as a mirror has it.
fn at_mirror(host: &str, repository: &str) -> String {
    let path = repository.split_once('/').map_or("", |(_, path)| path);
    format!("{host}/{path}")
}

/// For the fuzzer: everything that is private about docker configurations.
pub(crate) fn fuzz_docker_config(repository: &str, bytes: &[u8]) {
    for parsed in [DockerConfig::from_config_json(bytes), DockerConfig::from_dockercfg(bytes)] {
        match parsed {
            Ok(config) => {
                let mut keyring = Keyring::default();
                keyring.add(config, &Source::NodeFile { path: PathBuf::new() });
                drop(keyring.lookup(repository));
            }
            Err(error) => assert!(!error.contains("hunter2") && error.len() < 1_000, "{error}"),
        }
    }
}

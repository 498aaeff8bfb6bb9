//! The admission chain: what may still change or refuse a write after it is authorized. One file a plugin.

mod always_pull_images;
mod default_toleration_seconds;
mod digest_pinning;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod trust_bundle_attest;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use sampan_api::{Resource, Status, meta};
use serde_json::Value;

use crate::Error;
use crate::registry::Scope;

pub use digest_pinning::DigestResolver;

/// Which plugins run.
#[derive(Clone, Default)]
pub struct AdmissionConfig {
    /// Plugins that are off by default (`AlwaysPullImages`, `DigestPinning`), by name.
    pub enable: Vec<String>,
    /// Plugins that are on by default and should not run.
    pub disable: Vec<String>,
    /// What `DigestPinning` asks.
    pub digests: Option<Arc<dyn DigestResolver>>,
}

impl fmt::Debug for AdmissionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionConfig")
            .field("enable", &self.enable)
            .field("disable", &self.disable)
            .finish_non_exhaustive()
    }
}

/// What happens to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// What plugins judge by, and may change.
pub struct Attributes<'a> {
    /// The request's surroundings.
    pub scope: &'a Scope<'a>,
    /// What happens.
    pub operation: Operation,
    /// The name; empty while it is not generated.
    pub name: String,
    /// The new object, in its storage version; `null` for deletions.
    pub object: Value,
    /// The object that is there, for updates and deletions.
    pub old: Option<&'a Value>,
    /// What a plugin holds until the object is written.
    held: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl<'a> Attributes<'a> {
    /// The attributes of an operation, without objects.
    pub fn new(scope: &'a Scope<'a>, operation: Operation, name: String) -> Self {
        Self { scope, operation, name, object: Value::Null, old: None, held: OnceLock::new() }
    }

    /// Whether a plugin holds something already (a name that is generated anew is judged again).
    fn holds(&self) -> bool {
        self.held.get().is_some()
    }

    /// Keeps a lock until the object is written.
    fn hold(&self, lock: impl Any + Send + Sync) {
        let _held_already = self.held.set(Box::new(lock));
    }

    /// The (storage) resource.
    pub fn resource(&self) -> &'static Resource {
        self.scope.storage()
    }

    /// Whether it concerns this core resource, and not a subresource of it.
    pub fn is(&self, plural: &str) -> bool {
        self.is_core(plural) && self.scope.subresource.is_empty()
    }

    /// Whether it concerns this core resource or a part of it.
    pub fn is_core(&self, plural: &str) -> bool {
        self.resource().group.is_empty() && self.resource().plural == plural
    }

    /// 403 `pods "x" is forbidden: <why>`, with the name that errors show.
    pub fn forbidden(&self, why: impl AsRef<str>) -> Status {
        let mut name = self.name.as_str();
        if name.is_empty() {
            name = meta::name(&self.object);
        }
        if name.is_empty() {
            name = meta::generate_name(&self.object);
        }
        if name.is_empty() {
            name = "Unknown";
        }
        Status::forbidden(self.resource().group, self.resource().plural, name, why.as_ref())
    }
}

/// A plugin. Both methods do nothing unless it says otherwise.
#[async_trait]
trait Plugin: Send + Sync {
    /// Its name, as upstream's flags know it.
    fn name(&self) -> &'static str;

    /// May change or refuse the object.
    async fn admit(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the object once nobody changes it any more.
    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins that run, in upstream's order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Chain {
    /// Puts the chain together.
    ///
    /// # Errors
    /// When a name is none of a plugin.
    pub fn new(config: &AdmissionConfig) -> Result<Self, Error> {
        // (plugin, on by default)
        let all: Vec<(Box<dyn Plugin>, bool)> = vec![
            (Box::new(namespace_lifecycle::NamespaceLifecycle), true),
            (Box::new(limit_ranger::LimitRanger), true),
            (Box::new(service_account::ServiceAccount), true),
            (Box::new(node_restriction::NodeRestriction), true),
            (Box::new(always_pull_images::AlwaysPullImages), false),
            (Box::new(digest_pinning::DigestPinning { resolver: config.digests.clone() }), false),
            (Box::new(priority::Priority), true),
            (Box::new(default_toleration_seconds::DefaultTolerationSeconds), true),
            (Box::new(runtime_class::RuntimeClass), true),
            (Box::new(trust_bundle_attest::ClusterTrustBundleAttest), true),
            (Box::new(resource_quota::ResourceQuota::default()), true),
        ];
        for name in config.enable.iter().chain(&config.disable) {
            if !all.iter().any(|(plugin, _)| plugin.name() == name) {
                let known: Vec<_> = all.iter().map(|(plugin, _)| plugin.name()).collect();
                let reason = format!("unknown admission plugin {name:?}; known are {}", known.join(", "));
                return Err(Error::Config { setting: "admission plugins", reason });
            }
        }
        let runs = |plugin: &dyn Plugin, default: bool| {
            let named = |names: &[String]| names.iter().any(|name| name == plugin.name());
            !named(&config.disable) && (default || named(&config.enable))
        };
        let plugins =
            all.into_iter().filter(|(plugin, default)| runs(&**plugin, *default)).map(|(plugin, _)| plugin);
        Ok(Self { plugins: plugins.collect() })
    }

    /// Lets every plugin change the object.
    ///
    /// # Errors
    /// What the first plugin that refuses says.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.admit(attributes).await?;
        }
        Ok(())
    }

    /// Lets every plugin judge the final object.
    ///
    /// # Errors
    /// What the first plugin that refuses says.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.validate(attributes).await?;
        }
        Ok(())
    }
}

//! From a pod's spec to what the runtime is asked for: [`v1::PodSandboxConfig`](sampan_cri::v1::PodSandboxConfig)
//! and [`v1::ContainerConfig`](sampan_cri::v1::ContainerConfig). Everything below is computation on values; the
//! objects that it needs (ConfigMaps, Secrets, Services) are fetched before.

pub mod container;
pub mod dns;
pub mod env;
pub mod env_file;
pub(crate) mod env_size;
pub mod expansion;
pub mod fields;
pub mod hostname;
pub mod hosts;
pub(crate) mod node_defaults;
#[cfg(test)]
mod properties;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod service_env;

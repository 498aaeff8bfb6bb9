//! The node agent: pod workers, images, environment, volumes, status, the kubelet's HTTP API.
//!
//! It is an ordinary client of the Kubernetes API and of a CRI runtime, and knows nothing about which ones.
//! The way of a pod: [`pods`] gets it from the watch and gives it a worker; the worker computes what is to be
//! done ([`pods::actions`]), asks the runtime for it ([`generate`], [`images`], volumes) and reports
//! ([`status`], [`events`]).

pub mod backoff;
mod cgroups;
mod checkpoint;
pub mod clock;
mod config;
pub mod configuration;
mod context;
pub mod cri;
pub mod cri_log;
mod error;
pub mod events;
pub mod eviction;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub mod go_duration;
mod hooks;
mod http_get;
pub mod image_name;
pub mod images;
mod kubelet;
pub mod labels;
mod log_paths;
mod log_rotation;
#[allow(dead_code, reason = "some are counted by parts that are being written")]
mod metrics;
mod node;
mod objects;
pub mod pod_ref;
pub mod pods;
pub mod probes;
pub mod quantities;
mod server;
pub mod shutdown;
mod static_pods;
mod stats;
pub mod status;
mod token_request;
mod user_namespaces;
mod volumes;

pub use config::{KubeletConfig, Serving, ServingIdentity, ShutdownMode};
pub use configuration::{ConfigurationError, KubeletConfiguration};
pub use error::Error;
pub use images::config::{ImageConfig, VerificationPolicy};
pub use images::credentials::{Logins, RegistryLogins};
pub use kubelet::Kubelet;

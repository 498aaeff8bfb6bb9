//! Images: pulled from registries that behave and misbehave, loaded, saved, removed, recovered.

mod archives;
mod builder;
mod builtin;
#[path = "../../../oci/tests/it/fake.rs"]
mod fake;
mod faults;
mod hostile;
pub(crate) mod kill;
mod mounts;
mod platforms;
mod preload;
mod pull;
mod real_registry;
mod recovery;
mod speed;
mod trouble;

//! The revisioned key-value seam between the API server and storage: etcd's model.
//!
//! One revision counter, ranges, compare-and-swap transactions, watches from a revision, compaction and
//! leases. Two implementations: [`embedded`] (redb behind one group-commit writer) and [`etcd`]; the suite in
//! [`conformance`] runs against both.

pub mod conformance;
pub mod embedded;
mod error;
pub mod etcd;
mod model;

pub use error::Error;
pub use model::*;

//! Binds pods to nodes.
//!
//! An ordinary API client: it watches pods, nodes, namespaces and
//! PodDisruptionBudgets, keeps what it needs of them ([`cluster`]), decides with pure
//! functions ([`filter`], [`score`], [`preempt`]) and writes bindings, events and conditions ([`report`]). One task decides;
//! writes run beside it, against an assumed placement, so that a burst of pods is not slowed by the API.

mod budget;
mod cluster;
mod decide;
mod error;
mod filter;
mod message;
mod node;
mod pod;
mod preempt;
mod queue;
mod report;
mod scheduler;
mod score;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use error::Error;

/// The scheduler that pods name when they name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Runs the scheduler until `shutdown` is cancelled: watches unassigned pods and nodes through `client` and binds
/// each pod of `default-scheduler` to the node that suits it best.
///
/// # Errors
/// None at present that ends it: a lost API is waited for.
pub async fn run(client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    scheduler::Scheduler::new(client).run(shutdown).await
}

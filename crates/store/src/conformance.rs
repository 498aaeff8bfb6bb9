//! What every store has to do, as a suite that runs against any of them.
//!
//! Each check works under keys of its own and compares revisions with one another only, so all of them can run
//! one after the other on a store that is in use by nobody else.

use std::sync::Arc;

use crate::Store;

mod history;
mod lease;
mod transaction;
mod watch;
mod words;

/// Runs the whole suite; `factory` makes or returns a store. Only a failed check ends it early.
///
/// # Panics
/// At the first thing that a store does wrong.
pub async fn run<F, Made>(factory: F)
where
    F: Fn() -> Made,
    Made: Future<Output = Arc<dyn Store>>,
{
    transaction::put_grows_revision_by_one(factory().await).await;
    transaction::versions_count_writes_since_creation(factory().await).await;
    transaction::failed_comparison_writes_nothing_and_reads(factory().await).await;
    transaction::many_keys_change_in_one_revision(factory().await).await;
    transaction::deleting_nothing_is_no_write(factory().await).await;
    transaction::a_key_twice_is_refused(factory().await).await;
    transaction::racing_writers_lose_no_update(factory().await).await;
    history::ranges_are_ordered_limited_and_counted(factory().await).await;
    history::the_past_can_be_read(factory().await).await;
    history::pages_of_one_revision_are_consistent(factory().await).await;
    history::the_future_cannot_be_read(factory().await).await;
    history::compaction_forgets_the_past_only(factory().await).await;
    watch::reports_changes_from_now_on(factory().await).await;
    watch::reports_a_revision_at_once(factory().await).await;
    watch::reports_what_was_there_before(factory().await).await;
    watch::resumes_without_gap_while_others_write(factory().await).await;
    watch::from_the_future_waits(factory().await).await;
    watch::sleeping_reader_gets_everything(factory().await).await;
    watch::compacted_past_is_refused(factory().await).await;
    lease::revoking_deletes_the_keys(factory().await).await;
    lease::expiry_deletes_the_keys(factory().await).await;
    lease::overwriting_detaches_the_key(factory().await).await;
    lease::unknown_lease_is_refused(factory().await).await;
}

//! `sampan run FILE...`: starts what manifests describe and stays with it.
//!
//! The way of a run: read everything -> find a server or start one -> create the objects -> follow each pod
//! (events, states, pull progress, logs) until all have ended or Ctrl-C comes -> delete what was created ->
//! exit with the container's code.

mod apply;
mod follow;
mod outcome;
mod pull_progress;
pub(super) mod session;

pub(super) use pull_progress::watch as watch_pull;

use std::process::ExitCode;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use self::{outcome::Outcome, session::Session};
use crate::{cli::RunArgs, manifests, output::Printer};

pub(super) async fn run(args: RunArgs, printer: &Printer) -> Result<ExitCode> {
    let manifests = manifests::read(&args.files, &args.namespace)?;
    let interrupted = interrupt(printer.clone());
    let session = Session::open(&args, printer).await?;
    let result = stay(&session, &manifests, &args, printer, interrupted).await;
    session.close().await;
    Ok(result?.exit_code())
}

async fn stay(
    session: &Session,
    manifests: &[manifests::Manifest],
    args: &RunArgs,
    printer: &Printer,
    interrupted: CancellationToken,
) -> Result<Outcome> {
    let mut created = Vec::new();
    let applied = apply::create_all(session.client(), manifests, &mut created, printer).await;
    let result = match applied {
        Ok(()) => {
            let pods: Vec<_> = created.iter().filter(|made| made.resource.kind == "Pod").cloned().collect();
            follow::until_done(session, &pods, printer, interrupted).await
        }
        Err(error) => Err(error),
    };
    if args.keep && session.is_shared() && result.is_ok() {
        return result;
    }
    // Also after a failure: a run leaves nothing behind that it has made.
    let deleted = apply::delete_all(session.client(), &created, printer).await;
    let outcome = result?;
    deleted.map(|()| outcome)
}

/// Cancelled by the first Ctrl-C or SIGTERM.
fn interrupt(printer: Printer) -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        super::termination::termination().await;
        printer.status("stopping; press Ctrl-C again to leave at once");
        cancelled.cancel();
    });
    token
}

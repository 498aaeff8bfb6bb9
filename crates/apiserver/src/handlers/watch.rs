//! `watch`: what happens to a collection, as it happens.

use sampan_api::Status;

use super::{options, present};
use crate::negotiate::{Accepted, Form};
use crate::registry::Scope;
use crate::respond::Response;
use crate::watch::stream;

/// Answers a stream of changes.
pub(super) async fn watch(scope: &Scope<'_>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    if accepted.yaml {
        return Err(Status::not_acceptable(&["application/json", "application/json;stream=watch"]));
    }
    let request = options::watch(context, scope.resource)?;
    let include = if accepted.form == Form::Table { present::include(context)? } else { Default::default() };
    stream::open(scope, request, accepted.form, include).await
}

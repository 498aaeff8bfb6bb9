//! `watch`: what happens to a collection, as it happens.

use http::Request;
use sampan_api::Status;

use super::{options, present};
use crate::negotiate::{Accepted, Form};
use crate::registry::Scope;
use crate::respond::{Body, Response};
use crate::watch::{socket, stream};

/// Answers a stream of changes.
pub(super) async fn watch(scope: &Scope<'_>, request: Request<Body>) -> Result<Response, Status> {
    let context = scope.context;
    let accepted = Accepted::negotiate(&context.headers, &context.query, true)?;
    if accepted.yaml {
        return Err(Status::not_acceptable(&["application/json", "application/json;stream=watch"]));
    }
    let options = options::watch(context, scope.resource)?;
    let include = if accepted.form == Form::Table { present::include(context)? } else { Default::default() };
    let answer = stream::open(scope, options, accepted.form, include).await?;
    if socket::is_wanted(&context.headers) { socket::answer(request, answer).await } else { Ok(answer) }
}

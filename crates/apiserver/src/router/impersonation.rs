//! `Impersonate-*` headers: acting in another's name, for those who may.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use sampan_api::Status;

use crate::ApiServer;
use crate::authorization::{self, Decision};
use crate::context::RequestContext;
use crate::query;
use crate::request_info::RequestInfo;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const ACCOUNT: &str = "system:serviceaccount:";

/// Puts the impersonated user in the place of the one who asks.
///
/// # Errors
/// 403 when that is not allowed, 400 when groups come without a user or a header is unreadable.
pub(super) async fn impersonate(
    server: &Arc<ApiServer>,
    context: RequestContext,
) -> Result<RequestContext, Status> {
    let headers = &context.headers;
    let one = |name: &str| headers.get(name).map_or_else(|| Ok(String::new()), |value| text(name, value));
    let (username, uid) = (one(USER)?, one(UID)?);
    let groups = headers
        .get_all(GROUP)
        .iter()
        .map(|value| text(GROUP, value))
        .collect::<Result<Vec<String>, Status>>()?;
    let extra = extra(headers)?;
    if username.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(context);
        }
        return Err(Status::bad_request("requested impersonation without impersonating a user"));
    }
    let account = username.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => {
            may(server, &context, ("", "serviceaccounts", ""), namespace, name).await?
        }
        None => may(server, &context, ("", "users", ""), "", &username).await?,
    }
    if !uid.is_empty() {
        may(server, &context, ("authentication.k8s.io", "uids", ""), "", &uid).await?;
    }
    for group in &groups {
        may(server, &context, ("", "groups", ""), "", group).await?;
    }
    for (key, values) in &extra {
        for value in values {
            may(server, &context, ("authentication.k8s.io", "userextras", key), "", value).await?;
        }
    }
    let mut user = UserInfo { username, uid, groups, extra };
    if user.groups.is_empty()
        && let Some((namespace, _)) =
            user.username.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'))
    {
        user.groups =
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let general = if user.username == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(general.to_owned());
    }
    Ok(RequestContext { user: Arc::new(user), ..context })
}

/// A header's value. One that cannot be read must not count as absent: the request would be made in the name of who
/// sends it, who may be allowed more.
fn text(name: &str, value: &HeaderValue) -> Result<String, Status> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| Status::bad_request(format!("the header {name} is not UTF-8")))
}

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(query::decode(key, false)).or_default().push(text(name.as_str(), value)?);
        }
    }
    Ok(extra)
}

async fn may(
    server: &Arc<ApiServer>,
    context: &RequestContext,
    (group, resource, subresource): (&str, &str, &str),
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let info = RequestInfo {
        is_resource: true,
        verb: "impersonate".into(),
        group: group.into(),
        version: if group.is_empty() { "" } else { "v1" }.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        path: context.info.path.clone(),
        ..RequestInfo::default()
    };
    match authorization::authorize(server, &context.user, &info).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(authorization::forbidden(&context.user, &info, &reason))
        }
    }
}

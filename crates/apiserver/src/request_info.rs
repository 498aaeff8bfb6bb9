//! What a request is about, read from its method, path and query alone: upstream's `RequestInfo`.
//!
//! Everything after it (authentication, authorization, routing, admission) judges by these words and never
//! looks at the path again.

use http::Method;
use sampan_api::selector::FieldSelector;

use crate::query::{Query, decode};

/// The subject of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource; everything else (`/healthz`, `/apis`) is judged by its path.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths that are no
    /// resource the method in lower case.
    pub verb: String,
    /// `api` or `apis`; empty when the path is no resource.
    pub prefix: String,
    /// The API group; empty is the core group.
    pub group: String,
    /// The version, e.g. `v1`.
    pub version: String,
    /// The namespace; empty is none (cluster-scoped, or all namespaces). For the resource `namespaces` itself it
    /// repeats the name, as upstream does.
    pub namespace: String,
    /// The resource's plural, e.g. `pods`.
    pub resource: String,
    /// The subresource, e.g. `status`; empty is none.
    pub subresource: String,
    /// The object's name; empty for collections (unless a field selector names one).
    pub name: String,
    /// The whole path, as sent.
    pub path: String,
    /// The path's pieces from the resource on; those behind the subresource matter to `proxy`.
    pub parts: Vec<String>,
    /// The field selector as sent.
    pub field_selector: String,
    /// The label selector as sent.
    pub label_selector: String,
}

/// What stands below a namespace's name without being a resource of that namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];
/// Verbs that stood in paths once.
const PATH_VERBS: [&str; 2] = ["proxy", "watch"];

impl RequestInfo {
    /// Reads a request.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let mut info =
            Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), ..Self::default() };
        let pieces: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .filter(|piece| !piece.is_empty())
            .map(|piece| decode(piece, false))
            .collect();
        let mut rest = pieces.as_slice();
        match rest.first().map(String::as_str) {
            Some("api") if rest.len() >= 3 => {
                rest = &rest[1..];
                info.prefix = "api".to_owned();
            }
            Some("apis") if rest.len() >= 4 => {
                info.group = rest[1].clone();
                rest = &rest[2..];
                info.prefix = "apis".to_owned();
            }
            _ => return info,
        }
        info.is_resource = true;
        info.version = rest[0].clone();
        rest = &rest[1..];

        let mut path_verb = "";
        if let Some(verb) = PATH_VERBS.iter().find(|verb| rest[0] == **verb) {
            if rest.len() < 2 {
                info.is_resource = false;
                return info;
            }
            path_verb = verb;
            rest = &rest[1..];
        }
        info.verb = if path_verb.is_empty() {
            match *method {
                Method::POST => "create",
                Method::GET | Method::HEAD => "get",
                Method::PUT => "update",
                Method::PATCH => "patch",
                Method::DELETE => "delete",
                _ => "",
            }
            .to_owned()
        } else {
            path_verb.to_owned()
        };

        if rest[0] == "namespaces" && rest.len() > 1 {
            info.namespace = rest[1].clone();
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2].as_str()) {
                rest = &rest[2..];
            }
        }
        info.parts = rest.to_vec();
        info.resource = rest[0].clone();
        info.name = rest.get(1).cloned().unwrap_or_default();
        if path_verb != "proxy" {
            info.subresource = rest.get(2).cloned().unwrap_or_default();
        }

        info.field_selector = query.get("fieldSelector").unwrap_or_default().to_owned();
        info.label_selector = query.get("labelSelector").unwrap_or_default().to_owned();
        if info.name.is_empty() {
            match info.verb.as_str() {
                "get" => info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned(),
                "delete" => info.verb = "deletecollection".to_owned(),
                _ => {}
            }
        }
        if info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.name = name_selected(&info.field_selector).unwrap_or_default();
        }
        info
    }

    /// `pods`, `pods/status`: what rules name.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Whether the request only reads.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    /// Whether the request may rightly last long: it has no deadline.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || (self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
    }
}

/// The name that `metadata.name=x` in a field selector asks for: such a list may be granted to who may see that object.
/// Read by the parser that also selects: a term that only looks like this one, inside an escaped value, grants nothing.
fn name_selected(selector: &str) -> Option<String> {
    let selector = FieldSelector::parse(selector).ok()?;
    selector.requires_exact("metadata.name").filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, path: &str, query: &str) -> RequestInfo {
        RequestInfo::new(&method, path, &Query::parse(Some(query)))
    }

    #[test]
    fn paths_become_subjects() {
        let pod = info(Method::GET, "/api/v1/namespaces/default/pods/a/log", "");
        assert_eq!(
            (pod.verb.as_str(), pod.namespace.as_str(), pod.resource.as_str()),
            ("get", "default", "pods")
        );
        assert_eq!((pod.name.as_str(), pod.subresource.as_str()), ("a", "log"));
        assert!(pod.is_long_running());

        let list =
            info(Method::GET, "/apis/apps/v1/deployments", "watch=true&fieldSelector=metadata.name%3Dx");
        assert_eq!((list.verb.as_str(), list.group.as_str(), list.name.as_str()), ("watch", "apps", "x"));

        let namespace = info(Method::PUT, "/api/v1/namespaces/a/finalize", "");
        assert_eq!((namespace.resource.as_str(), namespace.name.as_str()), ("namespaces", "a"));
        assert_eq!((namespace.namespace.as_str(), namespace.subresource.as_str()), ("a", "finalize"));

        let all = info(Method::DELETE, "/api/v1/namespaces/a/pods", "");
        assert_eq!(all.verb, "deletecollection");

        for path in ["/healthz", "/api", "/api/v1", "/apis/apps/v1", "/"] {
            assert!(!info(Method::GET, path, "").is_resource, "{path}");
        }
    }
}

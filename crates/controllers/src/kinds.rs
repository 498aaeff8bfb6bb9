//! From the scheme's resources to the client's.

use kube::api::ApiResource;
use kube::core::{DynamicObject, DynamicResourceScope, ObjectMeta, TypeMeta};
use kube::{Api, Client};
use sampan_api::Resource;
use sampan_api::scheme;
use serde_json::Value;

/// A resource of the scheme.
///
/// # Panics
/// When the scheme does not have it: names are written in this crate, a test of each controller finds a wrong one.
pub(crate) fn find(group: &str, plural: &str) -> &'static Resource {
    let found =
        scheme::resources().iter().find(|resource| resource.group == group && resource.plural == plural);
    found.expect("the resource is in the scheme")
}

/// How the client names it.
pub(crate) fn api_resource(resource: &Resource) -> ApiResource {
    ApiResource {
        group: resource.group.into(),
        version: resource.version.into(),
        api_version: resource.api_version(),
        kind: resource.kind.into(),
        plural: resource.plural.into(),
    }
}

/// The objects of a namespace, or of the cluster when `namespace` is empty.
pub(crate) fn api<K>(client: &Client, resource: &Resource, namespace: &str) -> Api<K>
where
    K: kube::Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    let kind = api_resource(resource);
    if namespace.is_empty() || !resource.namespaced {
        Api::all_with(client.clone(), &kind)
    } else {
        Api::namespaced_with(client.clone(), namespace, &kind)
    }
}

/// A new object.
pub(crate) fn object(resource: &Resource, namespace: &str, name: &str, data: Value) -> DynamicObject {
    DynamicObject {
        types: Some(TypeMeta { api_version: resource.api_version(), kind: resource.kind.into() }),
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            ..ObjectMeta::default()
        },
        data,
    }
}

/// The HTTP status of an API failure.
pub(crate) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Takes "not found" for success: what should be gone is gone.
pub(crate) fn or_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error) == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

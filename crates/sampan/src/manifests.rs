//! Manifests of the command line: read, and matched with the kinds of the API, before anything is started.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::api::{ApiResource, DynamicObject};
use sampan_api::{Resource, meta, schema, scheme};

/// A manifest larger than this is a mistake, in bytes.
const LIMIT: u64 = 32 * 1024 * 1024;

/// One object to be created.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) resource: &'static Resource,
    pub(crate) object: DynamicObject,
}

impl Manifest {
    /// How the object is called in messages: `pod/hello`.
    pub(crate) fn label(&self) -> String {
        let name = self.object.metadata.name.as_deref().or(self.object.metadata.generate_name.as_deref());
        format!("{}/{}", self.resource.singular, name.unwrap_or(""))
    }

    /// The kind in kube's words.
    pub(crate) fn api_resource(&self) -> ApiResource {
        api_resource(self.resource)
    }

    /// Its client.
    pub(crate) fn api(&self, client: &kube::Client) -> kube::Api<DynamicObject> {
        match &self.object.metadata.namespace {
            Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, &self.api_resource()),
            None => kube::Api::all_with(client.clone(), &self.api_resource()),
        }
    }
}

fn api_resource(resource: &Resource) -> ApiResource {
    ApiResource {
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        plural: resource.plural.to_owned(),
    }
}

/// Reads all documents of all files; objects that name no namespace get `namespace`.
pub(crate) fn read(files: &[PathBuf], namespace: &str) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in files {
        let shown = file.display().to_string();
        let text = read_bounded(file).with_context(|| format!("reading {shown}"))?;
        let documents = sampan_api::manifest::parse(&text).with_context(|| shown.clone())?;
        for document in documents {
            let at = || format!("{shown}, document {} (line {})", document.index, document.line);
            ensure!(
                document.duplicates.is_empty(),
                "{}: duplicate field {}",
                at(),
                document.duplicates.join(", ")
            );
            manifests.push(manifest(document.object.clone(), namespace).with_context(at)?);
        }
    }
    ensure!(!manifests.is_empty(), "the files hold no objects: nothing to run");
    Ok(manifests)
}

fn read_bounded(file: &Path) -> io::Result<String> {
    let mut input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(fs::File::open(file)?),
    };
    let mut text = String::new();
    if input.by_ref().take(LIMIT + 1).read_to_string(&mut text)? as u64 > LIMIT {
        return Err(io::Error::other(format!("larger than {} MiB", LIMIT >> 20)));
    }
    Ok(text)
}

fn manifest(document: serde_json::Value, namespace: &str) -> Result<Manifest> {
    let (api_version, kind) = (meta::api_version(&document).to_owned(), meta::kind(&document).to_owned());
    ensure!(!api_version.is_empty(), "a document has no `apiVersion`; for a pod it is `v1`");
    ensure!(!kind.is_empty(), "a document has no `kind`");
    let Some(resource) = scheme::find_api_version(&api_version, &kind) else {
        let others: Vec<String> =
            scheme::resources().iter().filter(|r| r.kind == kind).map(Resource::api_version).collect();
        match others.as_slice() {
            [] => bail!("kind `{kind}` of `{api_version}` is unknown"),
            _ => bail!("kind `{kind}` is not in `{api_version}`, but in {}", others.join(", ")),
        }
    };
    // What the server would refuse of a later document must not come after the first pods were started.
    let decoded = schema::decode_value(resource, document).map_err(|error| anyhow!("{kind}: {error}"))?;
    ensure!(decoded.strict.is_empty(), "{kind}: {}", decoded.strict.join(", "));
    let mut object: DynamicObject =
        serde_json::from_value(decoded.object).with_context(|| format!("{kind} in {api_version}"))?;
    match resource.namespaced {
        true => drop(object.metadata.namespace.get_or_insert_with(|| namespace.to_owned())),
        false => object.metadata.namespace = None,
    }
    ensure!(
        object.metadata.name.is_some() || object.metadata.generate_name.is_some(),
        "a {kind} has no `metadata.name`"
    );
    Ok(Manifest { resource, object })
}

//! Runtime handlers: the `runtime` section of the configuration file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sampan_oci::Platform;
use sampan_runtime::{EMBEDDED, HandlerConfig, handlers::KNOWN_ENGINES};
use serde::Deserialize;

/// The `runtime` section of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct RuntimeOptions {
    /// The handler of pods without a RuntimeClass.
    pub(crate) default_handler: Option<String>,
    /// Handlers by name.
    pub(crate) handlers: BTreeMap<String, HandlerOptions>,
}

/// An OCI runtime: a program with runc's command line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HandlerOptions {
    /// The program.
    pub(crate) path: PathBuf,
    /// What it gets before the command.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Its state directory (`--root`); one below the run directory without it.
    #[serde(default)]
    pub(crate) root: Option<PathBuf>,
    /// Which annotations of pods their containers get: names, or beginnings that end with `*`.
    #[serde(default)]
    pub(crate) annotations: Vec<String>,
    /// The platform whose images it runs (`linux/arm64`), when it is not this machine's.
    #[serde(default)]
    pub(crate) platform: Option<String>,
}

impl RuntimeOptions {
    /// The handlers, checked, the embedded one among them; and the name of the default one. Whether a binary works
    /// is not asked here: it may come later, and a node runs without it.
    pub(crate) fn handlers(&self) -> Result<(String, BTreeMap<String, HandlerConfig>)> {
        let mut handlers = BTreeMap::from([(EMBEDDED.to_owned(), HandlerConfig::Embedded)]);
        for (name, options) in &self.handlers {
            ensure!(
                sampan_api::names::dns1123_label(name).is_empty(),
                "runtime.handlers `{name}`: lower-case letters, digits and `-`, at most 63"
            );
            ensure!(
                name != EMBEDDED,
                "runtime.handlers `{EMBEDDED}`: this is the name of the embedded runtime"
            );
            for path in std::iter::once(&options.path).chain(&options.root) {
                ensure!(path.is_absolute(), "runtime.handlers `{name}`: {} is not absolute", path.display());
            }
            let handler = HandlerConfig::Binary {
                path: options.path.clone(),
                args: options.args.clone(),
                root: options.root.clone(),
                annotations: options.annotations.clone(),
            };
            handlers.insert(name.clone(), handler);
        }
        let default = self.default_handler.clone().unwrap_or_else(|| EMBEDDED.to_owned());
        if !handlers.contains_key(&default) && !KNOWN_ENGINES.contains(&default.as_str()) {
            let known: Vec<_> = handlers.keys().map(String::as_str).collect();
            bail!("runtime.defaultHandler `{default}` is not configured; there are {}", known.join(", "));
        }
        Ok((default, handlers))
    }

    /// The platforms of the handlers that do not run this machine's.
    pub(crate) fn platforms(&self) -> Result<BTreeMap<String, Platform>> {
        let named =
            self.handlers.iter().filter_map(|(name, options)| Some((name, options.platform.as_ref()?)));
        let parse = |(name, platform): (&String, &String)| {
            let platform =
                platform.parse().with_context(|| format!("runtime.handlers `{name}`: platform"))?;
            Ok((name.clone(), platform))
        };
        named.map(parse).collect()
    }
}

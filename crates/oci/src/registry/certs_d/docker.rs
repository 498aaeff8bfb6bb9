//! A host's directory without `hosts.toml`: certificates only, under the names that docker knows.
//!
//! `*.crt` are authorities; `x.cert` with `x.key` is what we show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Capable, Sources};
use crate::registry::hosts::{Endpoint, EndpointTls, HostsError};

pub(super) fn endpoints(
    dir: &Path,
    own: Vec<Endpoint>,
    sources: &mut Sources,
) -> Result<Vec<Capable>, HostsError> {
    let listing =
        std::fs::read_dir(dir).map_err(|e| HostsError { path: dir.to_path_buf(), reason: e.to_string() })?;
    let mut files: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut tls = EndpointTls::default();
    for path in files {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.authorities.push(sources.required(&path)?),
            Some("cert") if tls.client.is_none() => {
                let certificate = sources.required(&path)?;
                tls.client = Some((certificate, sources.required(&path.with_extension("key"))?));
            }
            _ => {}
        }
    }
    let checked = !tls.authorities.is_empty();
    let tls = (tls != EndpointTls::default()).then(|| Arc::new(tls));
    let endpoint = |mut endpoint: Endpoint| {
        // Who names an authority wants it to be asked.
        if checked && endpoint.origin.starts_with("https://") {
            endpoint.skip_verify = false;
        }
        endpoint.tls.clone_from(&tls);
        Capable::all(endpoint)
    };
    Ok(own.into_iter().map(endpoint).collect())
}

//! `certs.d`: what an administrator says about registry hosts, in containerd's layout.
//!
//! ```text
//! /etc/sampan/certs.d/docker.io/hosts.toml        mirrors, certificates, headers
//! /etc/sampan/certs.d/registry.lan_5000_/ca.crt   certificates only, as docker knows them
//! /etc/sampan/certs.d/_default/hosts.toml         hosts without a directory of their own
//! ```
//!
//! Files are read when a host is first asked about and again when one of them changes, so no restart is
//! needed. Directories are searched in order; the first that has something about a host counts.

mod docker;
mod file;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub use file::{HostEntry, HostsFile};

use super::hosts::{Capability, Endpoint, Hosts, HostsError, StaticHosts};

/// The largest file that is read.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// The directory for hosts that have none.
const DEFAULT: &str = "_default";
/// Hosts whose files are remembered.
const MAX_CACHED: usize = 256;

/// Endpoints by `certs.d` directories; hosts that are not in them answer for themselves.
#[derive(Debug)]
pub struct CertsD {
    dirs: Vec<PathBuf>,
    fallback: StaticHosts,
    known: Mutex<HashMap<String, Known>>,
}

/// An endpoint and what it can do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Capable {
    pub(super) endpoint: Endpoint,
    pub(super) pull: bool,
    pub(super) resolve: bool,
}

/// What was read, and from what.
#[derive(Debug)]
struct Known {
    stamps: Vec<(PathBuf, Stamp)>,
    endpoints: Result<Vec<Capable>, HostsError>,
}

/// Enough of a file's metadata to see a change; `None`: there is no such file.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Files that a reading depends on, also those that were not there. Each has the stamp of the moment before it was
/// read, so that a change during the reading is seen too.
#[derive(Default)]
pub(super) struct Sources(Vec<(PathBuf, Stamp)>);

impl Sources {
    /// Reads a file that may be missing, and remembers that it was looked at.
    pub(super) fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, HostsError> {
        use std::io::Read;
        self.depends_on(path);
        let fail = |e: std::io::Error| HostsError { path: path.to_path_buf(), reason: e.to_string() };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(HostsError {
                path: path.to_path_buf(),
                reason: format!("larger than the {MAX_FILE} bytes that are read"),
            });
        }
        Ok(Some(bytes))
    }

    /// A file that must be there.
    pub(super) fn required(&mut self, path: &Path) -> Result<Vec<u8>, HostsError> {
        let missing = || HostsError { path: path.to_path_buf(), reason: "there is no such file".to_owned() };
        self.read(path)?.ok_or_else(missing)
    }

    pub(super) fn depends_on(&mut self, path: &Path) {
        self.0.push((path.to_path_buf(), stamp(path)));
    }
}

impl CertsD {
    /// Looks into these directories, in order; they may be missing, and appear later. `insecure` hosts may be
    /// spoken to in plain HTTP.
    pub fn new(dirs: Vec<PathBuf>, insecure: BTreeSet<String>) -> Self {
        Self { dirs, fallback: StaticHosts::new(insecure), known: Mutex::default() }
    }

    fn load(&self, host: &str) -> Known {
        let mut sources = Sources::default();
        let endpoints = self.read(host, &mut sources);
        if let Err(error) = &endpoints {
            tracing::warn!(host, %error, "registry configuration");
        }
        Known { stamps: sources.0, endpoints }
    }

    fn read(&self, host: &str, sources: &mut Sources) -> Result<Vec<Capable>, HostsError> {
        for dir in &self.dirs {
            for name in directories_of(host) {
                let dir = dir.join(&name);
                sources.depends_on(&dir);
                if !dir.is_dir() {
                    continue;
                }
                let path = dir.join("hosts.toml");
                let own = self.fallback.of(host);
                return match sources.read(&path)? {
                    Some(text) => HostsFile::parse(&text)
                        .map_err(|reason| HostsError { path: path.clone(), reason })?
                        .endpoints(host, &path, own, sources),
                    None => docker::endpoints(&dir, own, sources),
                };
            }
        }
        Ok(self.fallback.of(host).into_iter().map(Capable::all).collect())
    }
}

impl Capable {
    fn all(endpoint: Endpoint) -> Self {
        Self { endpoint, pull: true, resolve: true }
    }
}

impl Hosts for CertsD {
    fn endpoints(&self, host: &str, capability: Capability) -> Result<Vec<Endpoint>, HostsError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let current = known.get(host).is_some_and(|k| k.stamps.iter().all(|(path, was)| stamp(path) == *was));
        if !current {
            if known.len() >= MAX_CACHED {
                known.clear();
            }
            known.insert(host.to_owned(), self.load(host));
        }
        let all = known.get(host).map(|k| k.endpoints.clone()).unwrap_or_else(|| Ok(Vec::new()))?;
        let able = |c: &Capable| match capability {
            Capability::Pull => c.pull,
            Capability::Resolve => c.resolve,
        };
        Ok(all.into_iter().filter(able).map(|c| c.endpoint).collect())
    }
}

/// Names that a host's directory may have, best first: `h_5000_` (as colons are not allowed everywhere), `h:5000`,
/// and the one for all.
fn directories_of(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    // What is no host name must not lead out of the directory.
    let safe = !host.is_empty() && !host.contains(['/', '\0']) && host != "." && host != "..";
    if safe {
        if let Some((name, port)) = host.rsplit_once(':')
            && !port.ends_with(']')
        {
            names.push(format!("{}_{port}_", name.replace(':', "")));
        }
        names.push(host.to_owned());
    }
    names.push(DEFAULT.to_owned());
    names
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

#[cfg(test)]
mod tests;

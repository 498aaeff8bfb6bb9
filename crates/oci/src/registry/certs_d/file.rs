//! `hosts.toml`: the registry's server, and the mirrors that are asked before it.
//!
//! Containerd's format: root keys describe the server itself, each `[host."URL"]` table a mirror, asked in the
//! order of the file. Keys that are not known are ignored with a line in the log, as they may belong to another
//! runtime that reads the same file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use toml::{Table, Value};

use super::{Capable, Sources};
use crate::registry::hosts::{Endpoint, EndpointTls, HostsError, server_of};

/// The most mirrors of a file.
const MAX_HOSTS: usize = 64;

/// A parsed `hosts.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostsFile {
    /// The registry's own server; its `url` is empty when the file names none.
    pub server: HostEntry,
    /// Mirrors, in order.
    pub mirrors: Vec<HostEntry>,
}

/// One host of the file.
#[derive(Clone, PartialEq, Default)]
pub struct HostEntry {
    /// As written; without a scheme it means `https://`.
    pub url: String,
    /// `pull`, `resolve`, `push`; `None`: all.
    pub capabilities: Option<Vec<String>>,
    /// Files with authorities, relative to the directory of `hosts.toml`.
    pub ca: Vec<String>,
    /// Certificate and key that we show; the key is empty when the first file holds both.
    pub client: Option<(String, String)>,
    /// Certificates are not checked.
    pub skip_verify: bool,
    /// Headers for requests to it.
    pub header: Vec<(String, String)>,
    /// The URL's path is used as it is, without `/v2`.
    pub override_path: bool,
    /// Time to establish a connection.
    pub dial_timeout: Option<Duration>,
}

impl std::fmt::Debug for HostEntry {
    /// Without the headers' values: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&String> = self.header.iter().map(|(name, _)| name).collect();
        f.debug_struct("HostEntry")
            .field("url", &self.url)
            .field("capabilities", &self.capabilities)
            .field("ca", &self.ca)
            .field("client", &self.client)
            .field("skip_verify", &self.skip_verify)
            .field("header", &headers)
            .field("override_path", &self.override_path)
            .finish_non_exhaustive()
    }
}

impl HostsFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// The reason, naming the key: malformed TOML, a value of the wrong type, a URL that is none.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
        // The parser's display quotes the line, which may hold a secret header; its message does not.
        let table: Table = toml::from_str(text).map_err(|e| malformed(text, &e))?;
        let mut server = HostEntry::parse("", &table, &["server", "host"])?;
        if let Some(url) = table.get("server") {
            server.url = string("server", url)?;
        }
        if !server.url.is_empty() {
            location(&server)?;
        }
        let mut mirrors = Vec::new();
        match table.get("host") {
            None => {}
            Some(Value::Table(hosts)) if hosts.len() <= MAX_HOSTS => {
                for (url, entry) in hosts {
                    let Value::Table(entry) = entry else {
                        return Err(format!("host.{url:?}: must be a table"));
                    };
                    let entry = HostEntry { url: url.clone(), ..HostEntry::parse(url, entry, &[])? };
                    location(&entry)?;
                    mirrors.push(entry);
                }
            }
            Some(Value::Table(hosts)) => {
                return Err(format!("host: {} entries, more than {MAX_HOSTS}", hosts.len()));
            }
            Some(_) => return Err("host: must be tables named by URLs, as [host.\"https://…\"]".to_owned()),
        }
        Ok(Self { server, mirrors })
    }

    /// The endpoints: mirrors first, then the server; `own` is where the host itself answers.
    pub(super) fn endpoints(
        &self,
        host: &str,
        path: &Path,
        own: Vec<Endpoint>,
        sources: &mut Sources,
    ) -> Result<Vec<Capable>, HostsError> {
        let bad = |reason: String| HostsError { path: path.to_path_buf(), reason };
        let mut all = Vec::new();
        for mirror in &self.mirrors {
            let (origin, api) = location(mirror).map_err(bad)?;
            let name = origin.split_once("://").map_or("", |(_, name)| name);
            let itself = name == server_of(host) || name == host;
            let endpoint = Endpoint {
                path: api,
                namespace: (!itself).then(|| host.to_owned()),
                // A pull's credentials are for the registry; who runs its mirror is somebody else.
                credentials: itself,
                ..Endpoint::new(origin)
            };
            all.push(mirror.dress(endpoint, path, sources)?);
        }
        let servers = if self.server.url.is_empty() {
            own
        } else {
            let (origin, api) = location(&self.server).map_err(bad)?;
            vec![Endpoint { path: api, ..Endpoint::new(origin) }]
        };
        for endpoint in servers {
            all.push(self.server.dress(endpoint, path, sources)?);
        }
        Ok(all)
    }
}

impl HostEntry {
    fn parse(name: &str, table: &Table, known: &[&str]) -> Result<Self, String> {
        let at = |key: &str| if name.is_empty() { key.to_owned() } else { format!("host.{name:?}.{key}") };
        let mut entry = Self::default();
        for (key, value) in table {
            let at = at(key);
            match key.as_str() {
                "capabilities" => {
                    let list = strings(&at, value)?;
                    for one in &list {
                        if !matches!(one.as_str(), "pull" | "resolve" | "push" | "referrers") {
                            return Err(format!(
                                "{at}: unknown capability {one:?} (there are pull, resolve, push)"
                            ));
                        }
                    }
                    entry.capabilities = Some(list);
                }
                "ca" => entry.ca = one_or_many(&at, value)?,
                "client" => entry.client = client(&at, value)?,
                "skip_verify" => entry.skip_verify = boolean(&at, value)?,
                "override_path" => entry.override_path = boolean(&at, value)?,
                "dial_timeout" => entry.dial_timeout = Some(duration(&at, &string(&at, value)?)?),
                "header" => {
                    let Value::Table(headers) = value else { return Err(format!("{at}: must be a table")) };
                    for (name, value) in headers {
                        for value in one_or_many(&format!("{at}.{name}"), value)? {
                            HeaderName::try_from(name.as_str())
                                .map_err(|_| format!("{at}: {name:?} is no header name"))?;
                            HeaderValue::from_str(&value)
                                .map_err(|_| format!("{at}.{name}: the value is not a header value"))?;
                            entry.header.push((name.clone(), value));
                        }
                    }
                }
                other if known.contains(&other) => {}
                _ => tracing::info!(key = at, "hosts.toml: a key that is not known is ignored"),
            }
        }
        Ok(entry)
    }

    /// Adds to an endpoint what the entry says about it.
    fn dress(
        &self,
        mut endpoint: Endpoint,
        path: &Path,
        sources: &mut Sources,
    ) -> Result<Capable, HostsError> {
        let dir = path.parent().unwrap_or(path);
        let mut tls = EndpointTls::default();
        for ca in &self.ca {
            tls.authorities.push(sources.required(&dir.join(ca))?);
        }
        if let Some((certificate, key)) = &self.client {
            let certificate = sources.required(&dir.join(certificate))?;
            let key = if key.is_empty() { certificate.clone() } else { sources.required(&dir.join(key))? };
            tls.client = Some((certificate, key));
        }
        // A loopback host needs no certificate, unless somebody says how it is to be checked.
        endpoint.skip_verify = self.skip_verify || (endpoint.skip_verify && self.ca.is_empty());
        endpoint.tls = (tls != EndpointTls::default()).then(|| Arc::new(tls));
        endpoint.connect_timeout = self.dial_timeout;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.header {
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value))
            {
                value.set_sensitive(true);
                headers.append(name, value);
            }
        }
        endpoint.headers = headers;
        let can = |what: &str| self.capabilities.as_ref().is_none_or(|list| list.iter().any(|c| c == what));
        Ok(Capable { endpoint, pull: can("pull"), resolve: can("resolve") })
    }
}

/// Origin and API path of an entry's URL.
fn location(entry: &HostEntry) -> Result<(String, String), String> {
    let written = &entry.url;
    let text = if written.contains("://") { written.clone() } else { format!("https://{written}") };
    let bad = |why: &str| format!("{written:?} is not the URL of a registry: {why}");
    let url = Url::parse(&text).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("the scheme must be http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it is a secret.
        return Err("a registry URL must not carry user and password: use a header".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must end with the path"));
    }
    let path = url.path().trim_end_matches('/');
    let api =
        if entry.override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    Ok((url.origin().ascii_serialization(), api))
}

fn malformed(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
    let place = line.map_or_else(String::new, |line| format!("line {line}: "));
    format!("{place}{}", super::super::error::clip(error.message()))
}

fn string(at: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{at}: must be a string"))
}

fn boolean(at: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{at}: must be true or false"))
}

fn strings(at: &str, value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| format!("{at}: must be a list of strings"))?;
    list.iter().map(|one| string(at, one)).collect()
}

fn one_or_many(at: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(_) => strings(at, value),
        _ => Err(format!("{at}: must be a string or a list of strings")),
    }
}

/// `"file"`, `["file", …]` or `[["certificate", "key"], …]`; the first pair is the one that is shown.
fn client(at: &str, value: &Value) -> Result<Option<(String, String)>, String> {
    let pair = |value: &Value| match value {
        Value::String(one) => Ok((one.clone(), String::new())),
        Value::Array(two) => match &two[..] {
            [Value::String(certificate), Value::String(key)] => Ok((certificate.clone(), key.clone())),
            [Value::String(both)] => Ok((both.clone(), String::new())),
            _ => Err(format!("{at}: a pair is [\"certificate file\", \"key file\"]")),
        },
        _ => Err(format!("{at}: must be a file or a list of [certificate, key] pairs")),
    };
    match value {
        Value::Array(list) => list.first().map(pair).transpose(),
        other => pair(other).map(Some),
    }
}

/// A duration in Go's notation: `500ms`, `3s`, `1m30s`. None at all is refused: no connection is made in no time.
fn duration(at: &str, text: &str) -> Result<Duration, String> {
    let bad = || format!("{at}: {text:?} is not a duration such as \"3s\"");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(bad)
}

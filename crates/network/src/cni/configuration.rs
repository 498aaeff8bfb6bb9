//! Network configurations: `*.conflist`, or `*.conf` and `*.json` with a single plugin.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, PortMapping};

/// A file beyond this is no configuration.
const LARGEST: u64 = 1 << 20;
/// How many plugins a network may have.
const MOST_PLUGINS: usize = 32;

/// A network: plugins, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NetworkConfiguration {
    name: String,
    version: String,
    pub(super) plugins: Vec<Value>,
}

impl NetworkConfiguration {
    /// The first one in the directory, by file name.
    pub(super) fn first_of(dir: &Path) -> Result<Self, Error> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_one = |path: &std::path::PathBuf| {
            matches!(path.extension().and_then(|end| end.to_str()), Some("conflist" | "conf" | "json"))
        };
        // The words are containerd's: people look for them.
        let none = || Error::CniConfiguration {
            path: dir.to_owned(),
            message: "cni plugin not initialized: no network config found".to_owned(),
        };
        let path = entries.filter(is_one).min().ok_or_else(none)?;
        let broken = |message: String| Error::CniConfiguration { path: path.clone(), message };
        let length = fs::metadata(&path).map_err(|error| broken(error.to_string()))?.len();
        if length > LARGEST {
            return Err(broken(format!("{length} bytes are too many")));
        }
        let text = fs::read(&path).map_err(|error| broken(error.to_string()))?;
        let value: Value = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        Self::read(value).map_err(broken)
    }

    fn read(value: Value) -> Result<Self, String> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("cniVersion"));
        let plugins = match value.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err("`plugins` is not a list".to_owned()),
            None => vec![value],
        };
        if name.is_empty() {
            return Err("`name` is missing".to_owned());
        }
        if plugins.is_empty() || plugins.len() > MOST_PLUGINS {
            return Err(format!("{} plugins; there must be 1 to {MOST_PLUGINS}", plugins.len()));
        }
        if let Some(at) = plugins.iter().position(|plugin| plugin["type"].as_str().is_none_or(str::is_empty))
        {
            return Err(format!("`plugins[{at}].type` is missing"));
        }
        let version = if version.is_empty() { "0.2.0".to_owned() } else { version };
        Ok(Self { name, version, plugins })
    }

    /// What a plugin reads: its own part, the network's name and version, what was said at run time, and what the
    /// plugins before it said.
    pub(super) fn input(&self, plugin: &Value, mappings: &[PortMapping], before: &Value) -> Value {
        let mut input = plugin.clone();
        input["name"] = self.name.clone().into();
        input["cniVersion"] = self.version.clone().into();
        if plugin.pointer("/capabilities/portMappings") == Some(&Value::Bool(true)) && !mappings.is_empty() {
            input["runtimeConfig"] = json!({"portMappings": super::port_mappings(mappings)});
        }
        if let Some(object) = input.as_object_mut() {
            object.remove("capabilities");
            if !before.is_null() {
                object.insert("prevResult".to_owned(), before.clone());
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Protocol;

    #[test]
    fn the_first_file_is_the_network_and_a_single_plugin_is_a_list_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let said = |dir: &Path| NetworkConfiguration::first_of(dir).unwrap_err().to_string();
        assert!(said(dir.path()).contains("cni plugin not initialized"));
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("20-b.conflist", r#"{"cniVersion": "1.0.0", "name": "b", "plugins": [{"type": "bridge"}]}"#);
        write("10-a.conf", r#"{"name": "a", "type": "ptp"}"#);
        write("00-readme.txt", "no configuration");
        let network = NetworkConfiguration::first_of(dir.path()).unwrap();
        assert_eq!(
            (network.name.as_str(), network.version.as_str(), network.plugins.len()),
            ("a", "0.2.0", 1)
        );
        for (text, wanted) in [
            ("{", "EOF"),
            (r#"{"type": "x"}"#, "`name` is missing"),
            (r#"{"name": "x", "plugins": []}"#, "0 plugins"),
            (r#"{"name": "x", "plugins": {}}"#, "not a list"),
            (r#"{"name": "x", "plugins": [{"type": "a"}, {}]}"#, "`plugins[1].type`"),
        ] {
            write("10-a.conf", text);
            assert!(said(dir.path()).contains(wanted), "{}", said(dir.path()));
        }
    }

    #[test]
    fn a_plugin_gets_what_it_can_do() {
        let network = NetworkConfiguration::read(json!({"name": "n", "cniVersion": "1.0.0", "plugins": [
            {"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}}]}))
        .unwrap();
        let mappings =
            [PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];
        let input = |index: usize| network.input(&network.plugins[index], &mappings, &json!({"ips": []}));
        assert_eq!(
            input(0),
            json!({"type": "bridge", "name": "n", "cniVersion": "1.0.0", "prevResult": {"ips": []}})
        );
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        assert_eq!(input(1)["runtimeConfig"]["portMappings"], ports);
    }
}

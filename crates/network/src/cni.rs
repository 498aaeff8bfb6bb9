//! CNI: networks of other people's plugins, from a directory of configurations, as containerd and CRI-O use them.
//!
//! The first configuration by name is the network. What was done for a sandbox is remembered in a file, so that it is
//! undone with the same configuration after a restart, also when that was changed meanwhile. The built-in network is
//! not used at all then: bridges, addresses and masquerading are the plugins' business.

mod configuration;
mod plugin;

use std::{
    collections::HashSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::configuration::NetworkConfiguration;
use crate::{Error, NetworkStatus, PortMapping, SandboxNetwork, veth};

/// The name of a sandbox's interface.
const INTERFACE: &str = "eth0";

/// Networks of CNI plugins.
#[derive(Debug)]
pub struct Cni {
    configurations: PathBuf,
    plugins: Vec<PathBuf>,
    state: PathBuf,
}

/// Who the sandbox is: CNI plugins are told.
#[derive(Clone, Debug, Default)]
pub struct CniPod {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is remembered of a sandbox.
#[derive(Debug, Serialize, Deserialize)]
struct Attachment {
    netns: PathBuf,
    arguments: String,
    mappings: Vec<PortMapping>,
    network: NetworkConfiguration,
    /// What the last plugin said; null while they are at work.
    result: Value,
}

impl Cni {
    /// Networks of the configurations in one directory, with plugins from others; `state` is where is remembered what
    /// was done.
    ///
    /// # Errors
    /// When the state directory cannot be made.
    pub fn new(configurations: PathBuf, plugins: Vec<PathBuf>, state: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&state).map_err(|source| Error::State { path: state.clone(), source })?;
        Ok(Self { configurations, plugins, state })
    }

    /// Whether there is a network.
    ///
    /// # Errors
    /// When there is no configuration, the first one is broken, or a plugin that it names is missing.
    pub fn ready(&self) -> Result<(), Error> {
        let network = self.network()?;
        network.plugins.iter().try_for_each(|plugin| self.binary(plugin).map(drop))
    }

    fn network(&self) -> Result<NetworkConfiguration, Error> {
        NetworkConfiguration::first_of(&self.configurations)
    }

    fn binary(&self, plugin: &Value) -> Result<PathBuf, Error> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        // A name, not a path: a configuration must not run anything else.
        let name = Some(kind).filter(|kind| !kind.is_empty() && !kind.contains('/'));
        let found =
            name.and_then(|name| self.plugins.iter().map(|dir| dir.join(name)).find(|path| path.is_file()));
        found.ok_or_else(|| Error::CniPlugin {
            plugin: kind.to_owned(),
            operation: "finding",
            message: format!("not in {}", list(&self.plugins)),
        })
    }

    /// Connects a sandbox: `ADD` of every plugin. What was done is undone when a later one fails.
    ///
    /// # Errors
    /// When there is no network, or a plugin refuses: with what it says.
    pub async fn setup(&self, sandbox: &SandboxNetwork, pod: &CniPod) -> Result<NetworkStatus, Error> {
        let network = self.network()?;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, sandbox.id, pod.uid
        );
        let mut attachment = Attachment {
            netns: sandbox.netns.clone(),
            arguments,
            mappings: sandbox.port_mappings.clone(),
            network,
            result: Value::Null,
        };
        // Before anything is done: after a crash it is undone.
        self.remember(&sandbox.id, &attachment)?;
        veth::bring_loopback_up(&sandbox.netns).await?;
        match self.add(&sandbox.id, &mut attachment).await {
            Ok(status) => Ok(status),
            Err(error) => {
                let _ = self.teardown(&sandbox.id).await;
                Err(error)
            }
        }
    }

    async fn add(&self, id: &str, attachment: &mut Attachment) -> Result<NetworkStatus, Error> {
        for plugin in attachment.network.plugins.clone() {
            attachment.result = self.call("ADD", id, attachment, &plugin).await?;
        }
        self.remember(id, attachment)?;
        status(&attachment.result)
    }

    /// Asks every plugin whether what it did is there still.
    ///
    /// # Errors
    /// When the sandbox is unknown, or a plugin says no.
    pub async fn check(&self, id: &str) -> Result<(), Error> {
        let Some(attachment) = self.attachment(id)? else {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::State { path: self.state.join(id), source });
        };
        for plugin in &attachment.network.plugins {
            self.call("CHECK", id, &attachment, plugin).await?;
        }
        Ok(())
    }

    /// Disconnects a sandbox: `DEL` of every plugin, last one first. A sandbox that is unknown is no error; a plugin
    /// that fails does not keep the others from their work, and the sandbox stays known so that it is tried again.
    ///
    /// # Errors
    /// The first failure.
    pub async fn teardown(&self, id: &str) -> Result<(), Error> {
        let Some(mut attachment) = self.attachment(id)? else { return Ok(()) };
        if !attachment.netns.exists() {
            // Plugins take this as "the namespace is gone; forget the rest".
            attachment.netns = PathBuf::new();
        }
        let mut first = Ok(());
        for plugin in attachment.network.plugins.iter().rev() {
            let done = self.call("DEL", id, &attachment, plugin).await;
            first = first.and(done.map(drop));
        }
        first?;
        let path = self.state.join(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::State { path, source }),
            _ => Ok(()),
        }
    }

    /// Disconnects all sandboxes but these.
    ///
    /// # Errors
    /// The first failure; the others are tried all the same.
    pub async fn reconcile(&self, living: &HashSet<String>) -> Result<(), Error> {
        let failed = |source| Error::State { path: self.state.clone(), source };
        let mut first = Ok(());
        for entry in fs::read_dir(&self.state).map_err(failed)?.flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if !id.starts_with('.') && !living.contains(&id) {
                let done = self.teardown(&id).await;
                first = first.and(done);
            }
        }
        first
    }

    async fn call(
        &self,
        command: &str,
        id: &str,
        attachment: &Attachment,
        plugin: &Value,
    ) -> Result<Value, Error> {
        let input = attachment.network.input(plugin, &attachment.mappings, &attachment.result);
        let call = plugin::Call {
            binary: self.binary(plugin)?,
            command,
            variables: [
                ("CNI_COMMAND", command.to_owned()),
                ("CNI_CONTAINERID", id.to_owned()),
                ("CNI_NETNS", attachment.netns.display().to_string()),
                ("CNI_IFNAME", INTERFACE.to_owned()),
                ("CNI_ARGS", attachment.arguments.clone()),
                (
                    "CNI_PATH",
                    self.plugins.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"),
                ),
            ],
            input,
        };
        call.run().await
    }

    fn remember(&self, id: &str, attachment: &Attachment) -> Result<(), Error> {
        let (path, temporary) = (self.state.join(id), self.state.join(format!(".{id}")));
        let failed = |source| Error::State { path: path.clone(), source };
        let bytes = serde_json::to_vec(attachment).map_err(|error| failed(error.into()))?;
        fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path)).map_err(failed)
    }

    fn attachment(&self, id: &str) -> Result<Option<Attachment>, Error> {
        let path = self.state.join(id);
        match fs::read(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::State { path, source }),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(attachment) => Ok(Some(attachment)),
                Err(error) => Err(Error::State { path, source: error.into() }),
            },
        }
    }
}

/// The addresses in a result.
fn status(result: &Value) -> Result<NetworkStatus, Error> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let address = |ip: &Value| -> Option<IpAddr> { ip["address"].as_str()?.split('/').next()?.parse().ok() };
    let ips: Vec<IpAddr> = ips.clone().filter_map(address).collect();
    let gateway = result["ips"].pointer("/0/gateway").and_then(|gateway| gateway.as_str()?.parse().ok());
    let Some(first) = ips.first() else {
        return Err(Error::CniPlugin {
            plugin: "network".to_owned(),
            operation: "ADD of",
            message: "the result has no address".to_owned(),
        });
    };
    Ok(NetworkStatus { gateway: gateway.unwrap_or(*first), ips })
}

fn list(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir: &PathBuf| Path::display(dir).to_string()).collect::<Vec<_>>().join(", ")
}

/// The host ports as plugins with that capability get them.
fn port_mappings(mappings: &[PortMapping]) -> Value {
    let one = |mapping: &PortMapping| {
        let mut one = json!({
            "hostPort": mapping.host_port, "containerPort": mapping.container_port,
            "protocol": mapping.protocol.to_string().to_lowercase(),
        });
        if let Some(ip) = mapping.host_ip {
            one["hostIP"] = ip.to_string().into();
        }
        one
    };
    mappings.iter().map(one).collect()
}

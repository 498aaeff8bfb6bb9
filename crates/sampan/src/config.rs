//! What a server or an agent is told: options of the command line and keys of the configuration file are the same list.
//!
//! Three steps, each a type: [`ServerOptions`] is what was typed (on the command line or in the file),
//! [`ServerOptions::over`] lays one over the other, [`ServerConfig`] is what it means, with defaults filled in
//! and every value checked. Nothing is opened or bound before all of it is right. What makes a machine a node is the
//! same for both and stands in [`NodeOptions`].

mod agent;
mod handlers;
mod node;
mod server;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser},
};
use serde::{Deserialize, de::DeserializeOwned};

pub(crate) use self::{
    agent::{AgentConfig, AgentOptions},
    handlers::RuntimeOptions,
    node::{ClusterDns, ConfigFile, NodeConfig, NodeOptions, registry_hosts_dirs},
    server::{ServerConfig, ServerOptions},
};

/// The data directory of who names none.
const DATA_DIR: &str = "/var/lib/sampan";
/// The run directory of who names none.
const RUN_DIR: &str = "/run/sampan";

/// Where a server keeps things; two servers with different ones run side by side.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Directories {
    /// What survives a reboot [default: /var/lib/sampan]
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub(crate) data_dir: Option<PathBuf>,
    /// Sockets and namespaces [default: /run/sampan]
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub(crate) run_dir: Option<PathBuf>,
}

impl Directories {
    /// The data directory, or its default.
    pub(crate) fn data(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| DATA_DIR.into())
    }

    /// The run directory, or its default.
    pub(crate) fn run(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| RUN_DIR.into())
    }

    /// The CRI socket of the server that uses these directories.
    pub(crate) fn cri_socket(&self) -> PathBuf {
        self.run().join("cri.sock")
    }
}

/// A path of the command line, seen from where it was typed: sockets and mounts have no use for any other.
fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// Reads a configuration file.
fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_saphyr::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

fn absolute(path: Option<PathBuf>, default: &str) -> Result<PathBuf> {
    let path = path.unwrap_or_else(|| default.into());
    std::path::absolute(&path).with_context(|| format!("path {}", path.display()))
}

/// These options, field by field, with those of the base where nothing was said.
macro_rules! first_given {
    ($typed:ident over $base:ident { $($field:ident),* $(,)? } $($rest:tt)*) => {
        Self { $($field: $typed.$field.or($base.$field),)* $($rest)* }
    };
}
use first_given;

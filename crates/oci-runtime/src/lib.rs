//! The embedded OCI runtime, with runc's command line.
//!
//! It runs as a process of its own (`sampan oci …`), single-threaded, never inside the daemon: making a
//! container clones without exec and changes the caller's directory. libcontainer does namespaces, mounts
//! and cgroups; what it lacks is here: seccomp ([`seccomp`]), capabilities that let the filter be loaded last
//! ([`executor`]), runc's lookup of the command and runc's error texts, clamped limits ([`limits`]), the cgroup
//! hierarchies without controllers ([`cgroups`]), mounts and execs in a user namespace ([`user_namespace`]), a place
//! where what a container needs of the host is gathered ([`stage`]), and a kill and delete that wait for what they ended.

mod bundle;
mod cgroups;
mod command_line;
mod commands;
mod devices;
mod executor;
mod init;
mod journal;
mod kernel;
mod limits;
mod seccomp;
mod stage;
mod user_namespace;
mod working_directory;

use std::path::{Path, PathBuf};

pub use command_line::{main, run};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// In runc's words, for people.
    #[error("{0}")]
    Text(String),
    /// A file could not be read, written or understood.
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("parse {}", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// libcontainer failed.
    #[error("{0}")]
    Container(String, #[source] Box<libcontainer::error::LibcontainerError>),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }

    /// With all causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            source = error.source();
        }
        text
    }
}

/// Reads and parses a JSON file of bounded size.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    const MAX: u64 = 16 << 20;
    let file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX), &mut text)
        .map_err(Error::file("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

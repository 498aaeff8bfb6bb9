//! The commands, one file each.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod freeze;
pub(crate) mod kill;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::path::Path;

use libcontainer::container::Container;

use crate::journal::Whispers;
use crate::{Error, Result};

/// Finds a container by its id.
fn load(root: &Path, id: &str) -> Result<Container> {
    check_id(id)?;
    let dir = root.join(id);
    if !dir.join("state.json").exists() {
        return Err(Error::text("container does not exist"));
    }
    Container::load(dir).map_err(|source| Error::Container(format!("load container {id}"), Box::new(source)))
}

/// Ids are file names.
fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if !id.is_empty() && !id.starts_with('.') && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::text(format!("invalid container id: {id:?}")))
}

/// What went wrong while a process was made, in runc's words.
fn process_error(error: libcontainer::error::LibcontainerError, whispers: &mut Whispers) -> String {
    let mut message = Error::Container(String::new(), Box::new(error)).chain();
    for noise in [
        ": ",
        "failed to create container: ",
        "exec process failed with error ",
        "error in executing process : ",
        "intermediate process error ",
    ] {
        if let Some((_, rest)) = message.split_once(noise) {
            message = rest.to_owned();
        }
    }
    if message.starts_with("exec: ") {
        return message;
    }
    match whispers.cause() {
        Some(cause) if !message.contains(&cause) => {
            format!("error during container init: {message}: {cause}")
        }
        _ => format!("error during container init: {message}"),
    }
}

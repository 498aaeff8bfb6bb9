//! `start`: lets the container's command run.

use std::path::Path;

use libcontainer::container::ContainerStatus;

use super::load;
use crate::{Error, Result};

pub(crate) fn run(root: &Path, id: &str) -> Result<()> {
    let mut container = load(root, id)?;
    match container.status() {
        ContainerStatus::Created => {}
        ContainerStatus::Stopped => {
            return Err(Error::text("cannot start a container that has stopped"));
        }
        ContainerStatus::Running => {
            return Err(Error::text("cannot start an already running container"));
        }
        status => {
            return Err(Error::text(format!("cannot start a container in the {status} state")));
        }
    }
    container.start().map_err(|source| Error::Container(format!("start container {id}"), Box::new(source)))
}

//! `pause` and `resume`: the freezer.

use std::path::Path;

use super::load;
use crate::{Error, Result};

pub(crate) fn pause(root: &Path, id: &str) -> Result<()> {
    let done = load(root, id)?.pause();
    done.map_err(|source| Error::Container(format!("pause container {id}"), Box::new(source)))
}

pub(crate) fn resume(root: &Path, id: &str) -> Result<()> {
    let done = load(root, id)?.resume();
    done.map_err(|source| Error::Container(format!("resume container {id}"), Box::new(source)))
}

//! `update`: other limits for a container that runs.

use std::path::Path;

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use oci_spec::runtime::LinuxResources;

use super::load;
use crate::bundle::{Specs, cgroups_path};
use crate::{Error, Result, read_json};

pub(crate) fn run(root: &Path, id: &str, resources: &Path) -> Result<()> {
    load(root, id)?;
    let path = if resources == Path::new("-") { Path::new("/dev/stdin") } else { resources };
    let value = read_json(path)?;
    let resources: LinuxResources =
        serde_json::from_value(value).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let failed = |error: String| Error::text(format!("update container {id}: {error}"));
    let config = CgroupConfig {
        cgroup_path: cgroups_path(&Specs::of(root, id).original()?, id),
        systemd_cgroup: false,
        container_name: id.to_owned(),
    };
    let cgroup = create_cgroup_manager(config).map_err(|error| failed(error.to_string()))?;
    let options = ControllerOpt {
        resources: &resources,
        freezer_state: None,
        oom_score_adj: None,
        disable_oom_killer: false,
    };
    cgroup.apply(&options).map_err(|error| failed(error.to_string()))
}

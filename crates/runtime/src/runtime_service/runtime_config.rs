//! RuntimeConfig: the cgroup driver that the kubelet has to use (KEP-4033).

use sampan_cri::v1;

use crate::config::CgroupDriver;
use crate::runtime::Runtime;

pub(super) fn runtime_config(runtime: &Runtime) -> v1::RuntimeConfigResponse {
    let driver = match runtime.config.cgroup_driver {
        CgroupDriver::Cgroupfs => v1::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => v1::CgroupDriver::Systemd,
    };
    v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) }
}

//! The OCI runtime without a shim, for a container whose shim is dead.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::kernel::runtime_view;
use crate::protocol::OciRuntime;

/// `RUNTIME --root …` in a process group of its own, with the view of the machine that a shim gives it.
#[must_use]
pub fn runtime_command(runtime: &OciRuntime) -> Command {
    let mut command = Command::new(&runtime.path);
    command.args(&runtime.args).arg("--root").arg(&runtime.root).process_group(0).current_dir("/");
    runtime_view::prepare(&mut command, runtime.hide_unified, None);
    command
}

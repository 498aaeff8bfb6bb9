//! The last steps of a container's process: libcontainer has made everything around it and calls this.
//!
//! `validate` runs before `start` is waited for: it finds the command as runc does, so that a missing one fails
//! the create with runc's words. `exec` runs last: bounding, inheritable and ambient capabilities, then
//! the seccomp filter, then execve. The process keeps its effective capabilities up to there, which loading
//! a filter without no_new_privs needs; what the command gets is decided by the other sets, by the
//! kernel's rules at execve.

mod lookup;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::io::Write;
use std::path::PathBuf;

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::kernel::capabilities::{self, CapabilitySets};
use crate::kernel::{execution, stdio};
use crate::user_namespace::Member;
use crate::working_directory;

/// The exit code when execve itself fails, as with runc.
const EXEC_FAILED: i32 = 255;

/// What to run, from the bundle's own configuration.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    args: Vec<String>,
    env: Vec<String>,
    uid: u32,
    gid: u32,
    capabilities: CapabilitySets,
    console_size: Option<(u16, u16)>,
    /// The compiled seccomp filter; empty without one.
    filter: Vec<u8>,
    /// The working directory, when it is to be entered here and made when it is missing.
    directory: Option<PathBuf>,
    /// Whom the process has still to become, in a user namespace that it has not joined yet.
    member: Option<Member>,
    /// The command's file, once it has been found.
    found: RefCell<Option<CString>>,
}

impl Process {
    /// Reads an OCI process.
    pub(crate) fn new(process: &Value, filter: Vec<u8>) -> Result<Self, String> {
        let strings = |value: Option<&Value>| -> Vec<String> {
            let list = value.and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        };
        let number = |pointer: &str| {
            let number = process.pointer(pointer).and_then(Value::as_u64);
            u32::try_from(number.unwrap_or(0)).map_err(|_| format!("process{pointer}: too large"))
        };
        let args = strings(process.get("args"));
        if args.is_empty() {
            return Err("process.args is empty".into());
        }
        let set = |name: &str| {
            let names = strings(process.pointer(&format!("/capabilities/{name}")));
            capabilities::mask(names.iter().map(String::as_str))
        };
        let size = |name: &str| {
            let size = process.pointer(&format!("/consoleSize/{name}"));
            size.and_then(Value::as_u64).and_then(|size| u16::try_from(size).ok())
        };
        Ok(Self {
            args,
            env: strings(process.get("env")),
            uid: number("/user/uid")?,
            gid: number("/user/gid")?,
            capabilities: CapabilitySets {
                bounding: set("bounding"),
                inheritable: set("inheritable"),
                ambient: set("ambient"),
            },
            console_size: size("width").zip(size("height")),
            filter,
            directory: None,
            member: None,
            found: RefCell::new(None),
        })
    }

    /// Enters the working directory, which libcontainer then has not to, and makes it when it is missing.
    pub(crate) fn enter(&mut self, directory: PathBuf) {
        self.directory = Some(directory);
    }

    /// Joins a user namespace as the last step but the limits.
    pub(crate) fn join(&mut self, member: Member) {
        self.member = Some(member);
    }

    /// The environment as given, in its order, with HOME from the container's passwd when it is missing.
    fn environment(&self) -> Vec<CString> {
        let mut env: Vec<&str> = self.env.iter().map(String::as_str).collect();
        let home;
        let has_home = |entry: &&str| entry.len() > 5 && entry.starts_with("HOME=");
        if !env.iter().any(has_home) {
            env.retain(|entry| *entry != "HOME=");
            home = format!("HOME={}", lookup::home(self.uid));
            env.push(&home);
        }
        env.iter().filter_map(|entry| CString::new(*entry).ok()).collect()
    }
}

impl Executor for Process {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let failed = ExecutorValidationError::ArgValidationError;
        if let Some(directory) = &self.directory {
            working_directory::enter(directory).map_err(failed)?;
        }
        let path = lookup::find(&self.args[0], &self.env).map_err(failed)?;
        let path = CString::new(path).map_err(|error| failed(error.to_string()))?;
        *self.found.borrow_mut() = Some(path);
        let (uid, gid) = self.member.as_ref().map_or((self.uid, self.gid), |member| member.on_host);
        stdio::hand_over(uid, gid);
        if let Some((width, height)) = self.console_size {
            stdio::resize(width, height);
        }
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The command gets its environment by execve; this process needs none.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let path = self.found.borrow().clone().ok_or(ExecutorError::InvalidArg)?;
        let args: Result<Vec<CString>, _> = self.args.iter().map(|a| CString::new(a.as_str())).collect();
        let args = args.map_err(|_| ExecutorError::InvalidArg)?;
        let env = self.environment();
        let error = self
            .member
            .as_ref()
            .map_or(Ok(()), Member::join)
            .map_err(|error| format!("join the user namespace: {error}"))
            .and_then(|()| {
                capabilities::limit(&self.capabilities).map_err(|error| format!("set capabilities: {error}"))
            })
            .and_then(|()| {
                let name = path.to_string_lossy();
                execution::run(&self.filter, &path, &args, &env)
                    .map_err(|error| format!("exec {name}: {error}"))
            });
        let Err(message) = error;
        // The create has long succeeded; all that is left is the container's own stderr, as with runc.
        let _ = writeln!(std::io::stderr(), "{message}");
        execution::exit(EXEC_FAILED)
    }
}

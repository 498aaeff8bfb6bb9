//! Which system calls a container may make: nothing (Unconfined), our default table, or a profile on the node.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sampan_cri::v1::{self, security_profile::ProfileType};
use serde_json::{Value, json};

use super::SpecError;

mod runtime_default;

/// Profiles of thousands of lines have 100 KiB.
const MAX_PROFILE: u64 = 4 << 20;

/// `linux.seccomp`; `None` is unconfined. The kubelet says RuntimeDefault itself when it wants that as default.
pub(super) fn profile(
    security: &v1::LinuxContainerSecurityContext,
    capabilities: &Value,
) -> Result<Option<Value>, SpecError> {
    if security.privileged {
        return Ok(None);
    }
    match &security.seccomp {
        Some(profile) => match profile.profile_type() {
            ProfileType::Unconfined => Ok(None),
            ProfileType::RuntimeDefault => Ok(Some(runtime_default(capabilities))),
            ProfileType::Localhost => localhost(Path::new(&profile.localhost_ref)).map(Some),
        },
        None => {
            #[allow(deprecated, reason = "older kubelets send only this")]
            let path = security.seccomp_profile_path.as_str();
            match path {
                "" | "unconfined" => Ok(None),
                "runtime/default" | "docker/default" => Ok(Some(runtime_default(capabilities))),
                other => match other.strip_prefix("localhost/") {
                    Some(file) => localhost(Path::new(file)).map(Some),
                    None => Err(SpecError::invalid(format!("unknown seccomp profile {other:?}"))),
                },
            }
        }
    }
}

fn localhost(path: &Path) -> Result<Value, SpecError> {
    if !path.is_absolute() {
        return Err(SpecError::invalid(format!(
            "seccomp profile {:?} is not an absolute path",
            path.display()
        )));
    }
    let failed =
        |source| SpecError::Io { operation: "cannot load seccomp profile", path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_PROFILE).read_to_end(&mut text)).map_err(failed)?;
    let profile: Value = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    if !profile["defaultAction"].is_string() {
        return Err(SpecError::invalid(format!(
            "cannot load seccomp profile {}: it has no defaultAction",
            path.display()
        )));
    }
    Ok(profile)
}

/// The table as a profile for a container with these capabilities.
fn runtime_default(capabilities: &Value) -> Value {
    let has = |name: &str| {
        capabilities.as_array().is_some_and(|list| list.iter().any(|have| have.as_str() == Some(name)))
    };
    let allow = |names: &[&str]| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let mut rules = vec![allow(runtime_default::ALWAYS)];
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(runtime_default::X86_64));
    }
    if cfg!(target_arch = "aarch64") {
        rules.push(allow(runtime_default::AARCH64));
    }
    for persona in runtime_default::PERSONALITIES {
        rules.push(json!({
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": persona, "op": "SCMP_CMP_EQ"}],
        }));
    }
    for family in runtime_default::SOCKET_FAMILY_RANGES {
        rules.push(json!({
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": family.0, "op": family.1}],
        }));
    }
    for (capability, names) in runtime_default::WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(names));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        // clone without any flag that makes a namespace; on s390 the flags are the second argument.
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{
                "index": 0, "value": runtime_default::NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
            }],
        }));
        // Its flags are behind a pointer: libc falls back to clone when it seems not to exist.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }
    let architectures: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &[]
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allowed(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["args"].is_null()
                && rule["names"].as_array().unwrap().iter().any(|have| have == name)
        })
    }

    #[test]
    fn capabilities_open_their_system_calls() {
        let plain = runtime_default(&json!(["CAP_KILL", "CAP_SYS_CHROOT"]));
        assert!(allowed(&plain, "openat2") && allowed(&plain, "chroot"));
        assert!(!allowed(&plain, "mount") && !allowed(&plain, "clone3") && !allowed(&plain, "add_key"));
        let admin = runtime_default(&json!(["CAP_SYS_ADMIN"]));
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3") && allowed(&admin, "unshare"));
    }

    #[test]
    fn profiles_of_the_node_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        assert_eq!(localhost(&file).unwrap()["defaultAction"], "SCMP_ACT_ALLOW");
        std::fs::write(&file, "{}").unwrap();
        assert!(localhost(&file).is_err());
        assert!(
            localhost(&dir.path().join("missing")).unwrap_err().to_string().contains("cannot load seccomp")
        );
        assert!(localhost(Path::new("relative")).is_err());
    }
}

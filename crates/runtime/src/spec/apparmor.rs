//! AppArmor profiles of containers, and the default one, which is loaded through the host's `apparmor_parser` as other
//! engines do it. Who asks for nothing gets the default where it can be had.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use sampan_cri::v1;

/// The name of the default profile.
const DEFAULT: &str = "sampan-default";
/// What the default profile says; the file comes with the binary.
const RULES: &str = include_str!("apparmor/sampan-default.txt");
/// The rules' dialect, where the parser's package brings it: without it a newer parser assumes the kernel's newest.
const ABI: &str = "/etc/apparmor.d/abi/3.0";
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];

/// Why a container cannot have its profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppArmorError {
    /// The kernel has no AppArmor.
    #[error("AppArmor is not enabled on this host")]
    Disabled,
    /// The default profile needs the parser.
    #[error(
        "the default AppArmor profile cannot be loaded: there is no apparmor_parser on this host, install it (package \
         apparmor), or name a profile that is loaded already (type: Localhost) or none (type: Unconfined)"
    )]
    NoParser,
    /// The parser, or the kernel behind it, refuses the default profile.
    #[error("the default AppArmor profile cannot be loaded: {0}")]
    Refused(String),
}

/// AppArmor of this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AppArmor {
    enabled: bool,
    /// What loads profiles.
    parser: Option<PathBuf>,
    /// Whether the default profile is loaded, once that was tried.
    default: Arc<OnceLock<Result<(), AppArmorError>>>,
}

impl AppArmor {
    /// Looks at the machine. Where there is AppArmor, the default profile is loaded meanwhile: it is there before the
    /// first container that needs it, and nobody's start waits for the parser.
    pub(crate) fn detect() -> Self {
        let enabled = fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y");
        let found = Self::with(enabled, PARSERS.iter().map(PathBuf::from).find(|path| path.exists()));
        if enabled {
            let loading = found.clone();
            std::thread::spawn(move || {
                if let Err(problem) = loading.load_default() {
                    tracing::warn!(%problem, "containers that name no AppArmor profile run unconfined");
                }
            });
        }
        found
    }

    fn with(enabled: bool, parser: Option<PathBuf>) -> Self {
        Self { enabled, parser, default: Arc::default() }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The profile of a container; `None` is unconfined.
    pub(super) fn profile(
        &self,
        security: &v1::LinuxContainerSecurityContext,
    ) -> Result<Option<String>, AppArmorError> {
        use v1::security_profile::ProfileType;
        if security.privileged {
            return Ok(None);
        }
        #[allow(deprecated, reason = "older kubelets send only this")]
        let (kind, name) = match &security.apparmor {
            Some(profile) => (Some(profile.profile_type()), profile.localhost_ref.as_str()),
            None => match security.apparmor_profile.as_str() {
                "" => (None, ""),
                "runtime/default" => (Some(ProfileType::RuntimeDefault), ""),
                "unconfined" => (Some(ProfileType::Unconfined), ""),
                other => (Some(ProfileType::Localhost), other.strip_prefix("localhost/").unwrap_or(other)),
            },
        };
        match kind {
            Some(ProfileType::Unconfined) => Ok(None),
            Some(_) if !self.enabled => Err(AppArmorError::Disabled),
            Some(ProfileType::Localhost) => Ok(Some(name.to_owned())),
            Some(ProfileType::RuntimeDefault) => self.load_default().map(|()| Some(DEFAULT.to_owned())),
            // Confined where that is possible.
            None => Ok((self.enabled && self.load_default().is_ok()).then(|| DEFAULT.to_owned())),
        }
    }

    /// Loads the default profile in the place of what another version has loaded; at most once.
    fn load_default(&self) -> Result<(), AppArmorError> {
        let load = || match &self.parser {
            Some(parser) => load(parser, &rules(Path::new(ABI).exists())).map_err(AppArmorError::Refused),
            None => Err(AppArmorError::NoParser),
        };
        self.default.get_or_init(load).clone()
    }
}

/// The profile's text.
fn rules(has_abi: bool) -> String {
    let abi = if has_abi { "abi <abi/3.0>,\n" } else { "" };
    format!("{abi}{}", RULES.replace("NAME", DEFAULT))
}

/// Gives a profile to the parser; what it says when it fails.
fn load(parser: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", parser.display());
    let mut running = Command::new(parser)
        .args(["--skip-cache", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Dropped, and so closed, at the end of the statement. One that ends early says why itself.
    let written = running.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let output = running.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(format!("{}: {}", parser.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use v1::security_profile::ProfileType;

    use super::*;

    fn asks(kind: ProfileType, name: &str) -> v1::LinuxContainerSecurityContext {
        let profile = v1::SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() };
        v1::LinuxContainerSecurityContext { apparmor: Some(profile), ..Default::default() }
    }

    /// A parser that keeps what it is given, or refuses it.
    fn parser(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("apparmor_parser");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn without_apparmor_only_who_asks_for_it_is_refused() {
        let none = AppArmor::with(false, None);
        let nothing = v1::LinuxContainerSecurityContext::default();
        assert_eq!(none.profile(&nothing), Ok(None));
        assert_eq!(none.profile(&asks(ProfileType::Unconfined, "")), Ok(None));
        for wanted in [asks(ProfileType::RuntimeDefault, ""), asks(ProfileType::Localhost, "p")] {
            assert_eq!(none.profile(&wanted), Err(AppArmorError::Disabled));
        }
        let privileged =
            v1::LinuxContainerSecurityContext { privileged: true, ..asks(ProfileType::Localhost, "p") };
        assert_eq!(none.profile(&privileged), Ok(None));
    }

    #[test]
    fn the_default_profile_is_loaded_once_and_everybodys_who_names_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("loaded");
        let parser = parser(dir.path(), &format!("cat >> {}", kept.display()));
        let apparmor = AppArmor::with(true, Some(parser));
        for wanted in [v1::LinuxContainerSecurityContext::default(), asks(ProfileType::RuntimeDefault, "")] {
            assert_eq!(apparmor.profile(&wanted).unwrap().as_deref(), Some(DEFAULT));
        }
        assert_eq!(apparmor.profile(&asks(ProfileType::Localhost, "p")).unwrap().as_deref(), Some("p"));
        assert_eq!(apparmor.profile(&asks(ProfileType::Unconfined, "")), Ok(None));
        let loaded = fs::read_to_string(kept).unwrap();
        assert_eq!(loaded.matches("profile sampan-default ").count(), 1, "{loaded}");
        assert!(!loaded.contains("NAME"));
    }

    #[test]
    fn without_a_parser_the_refusal_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let bad = parser(dir.path(), "echo 'syntax error' >&2; exit 1");
        for (parser, text) in [(None, "package apparmor"), (Some(bad), "syntax error")] {
            let apparmor = AppArmor::with(true, parser);
            let refusal = apparmor.profile(&asks(ProfileType::RuntimeDefault, "")).unwrap_err().to_string();
            assert!(refusal.contains(text), "{refusal}");
            assert_eq!(apparmor.profile(&v1::LinuxContainerSecurityContext::default()), Ok(None));
        }
    }

    #[test]
    fn the_parser_understands_the_default_profile() {
        let Some(parser) = PARSERS.iter().map(Path::new).find(|path| path.exists()) else { return };
        let dir = tempfile::tempdir().unwrap();
        let (text, out) = (dir.path().join("text"), dir.path().join("out"));
        fs::write(&text, rules(Path::new(ABI).exists())).unwrap();
        let said = Command::new(parser)
            .args(["--skip-kernel-load", "--skip-cache", "--ofile"])
            .args([&out, &text])
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        assert_ne!(fs::metadata(out).unwrap().len(), 0);
    }
}

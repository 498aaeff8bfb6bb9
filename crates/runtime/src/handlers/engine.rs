//! Which OCI runtime a binary is, and whether it can be used at all: found out by running it, with bounds, before
//! any pod depends on it. A binary that is missing, hangs, crashes or prints nonsense is told apart here.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long `--version` and `features` may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of their output is read.
const MAX_OUTPUT: u64 = 256 << 10;
/// The oldest runc with everything that we write into specifications.
const OLDEST_RUNC: (u32, u32) = (1, 0);

/// A family of OCI runtimes with ways of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// runc.
    Runc,
    /// crun: before 1.9 it refuses machines with both cgroup versions mounted.
    Crun,
    /// gVisor: its processes are not the host's.
    Runsc,
    /// Kata Containers: a virtual machine per pod.
    Kata,
    /// Anything else that answers as an OCI runtime does (youki, railcar, a wrapper).
    Other,
}

/// What a binary says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The family.
    pub engine: Engine,
    /// Its own name for itself, such as `runc`.
    pub name: String,
    /// Such as `1.1.5+ds1`.
    pub version: String,
    /// Whether it makes whole mount trees read-only (`rro`).
    pub recursive_read_only: bool,
    /// Whether it maps the ids of mounts, which user namespaces need.
    pub id_mapped_mounts: bool,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Why a binary cannot be used, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is missing or something else, or the machine has not what it needs: waiting does not help.
    #[error("{0}")]
    Wrong(String),
    /// It could not be asked, or did not answer in time, as on a machine that is very busy: it may the next time.
    #[error("{0}")]
    NotNow(String),
}

impl Unusable {
    /// By whether the same may go well a moment later.
    fn of(error: &io::Error, text: String) -> Self {
        use io::ErrorKind::{
            ExecutableFileBusy, Interrupted, OutOfMemory, ResourceBusy, TimedOut, WouldBlock,
        };
        let of_the_moment =
            matches!(
                error.kind(),
                ExecutableFileBusy | Interrupted | OutOfMemory | ResourceBusy | TimedOut | WouldBlock
            ) || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::EIO));
        if of_the_moment { Self::NotNow(text) } else { Self::Wrong(text) }
    }
}

/// Asks a binary what it is.
///
/// # Errors
/// Missing, not executable, no OCI runtime, too slow, too old, or without what it needs from the machine.
pub async fn identify(path: &Path) -> Result<Identity, Unusable> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unusable::Wrong(format!("{shown} does not exist")));
        }
        Err(error) => return Err(Unusable::of(&error, format!("{shown}: {error}"))),
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(Unusable::Wrong(format!("{shown} is not an executable file")));
    }
    let text = run(path, "--version").await?;
    let mut identity = parse(&text).ok_or_else(|| {
        let line: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
        Unusable::Wrong(format!("{shown} is no OCI runtime: --version printed {line:?}"))
    })?;
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    check(&identity, kvm.is_ok()).map_err(Unusable::Wrong)?;
    if matches!(identity.engine, Engine::Runc | Engine::Crun | Engine::Other) {
        let features = match run(path, "features").await {
            // Remembered as one without features it would be wrong for as long as its file is the same.
            Err(not_now @ Unusable::NotNow(_)) => return Err(not_now),
            // Older ones do not know the word; then they do not have the feature either.
            Err(Unusable::Wrong(_)) => String::new(),
            Ok(features) => features,
        };
        let features: serde_json::Value = serde_json::from_str(&features).unwrap_or_default();
        let options = features["mountOptions"].as_array();
        identity.recursive_read_only =
            options.is_some_and(|options| options.iter().any(|option| option == "rro"));
        identity.id_mapped_mounts = features["linux"]["mountExtensions"]["idmap"]["enabled"] == true;
    }
    Ok(identity)
}

/// One short call; its output, if it succeeded in time.
async fn run(path: &Path, argument: &str) -> Result<String, Unusable> {
    let shown = format!("{} {argument}", path.display());
    let mut command = Command::new(path);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|error| Unusable::of(&error, format!("{shown} cannot be run: {error}")))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    let mut stdout = child.stdout.take();
    let answer = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = &mut stdout {
            stdout.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
        }
        // Whoever prints more than that is not listened to any longer: it gets EPIPE.
        drop(stdout);
        Ok::<_, io::Error>((bytes, child.wait().await?))
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok((bytes, status))) if status.success() => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Ok(Ok((_, status))) => Err(Unusable::Wrong(format!("{shown} failed: {status}"))),
        Ok(Err(error)) => Err(Unusable::of(&error, format!("{shown}: {error}"))),
        Err(_) => {
            // A script's children hold the pipe, too.
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(Unusable::NotNow(format!("{shown} did not answer within {} s", PATIENCE.as_secs())))
        }
    }
}

/// `runc version 1.1.5+ds1`, `kata-runtime  : 3.2.0`: a name and a number on the first line.
fn parse(text: &str) -> Option<Identity> {
    let line = text.lines().next()?;
    let words: Vec<&str> = line
        .split_whitespace()
        .filter(|word| !matches!(word.trim_end_matches(':'), "" | "version"))
        .take(3)
        .collect();
    let [name, version, ..] = words[..] else { return None };
    let name = name.trim_end_matches(':');
    let sane = |text: &str| text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic());
    if !sane(name) || !sane(version) || !version.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if !line.contains("version") && !line.contains(':') {
        return None;
    }
    let engine = match name {
        "runc" => Engine::Runc,
        "crun" => Engine::Crun,
        "runsc" => Engine::Runsc,
        "kata-runtime" => Engine::Kata,
        _ => Engine::Other,
    };
    Some(Identity {
        engine,
        name: name.to_owned(),
        version: version.to_owned(),
        recursive_read_only: false,
        id_mapped_mounts: false,
    })
}

/// What an engine needs beyond being there.
fn check(identity: &Identity, kvm: bool) -> Result<(), String> {
    let mut numbers = identity.version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match identity.engine {
        Engine::Runc if version < OLDEST_RUNC => {
            Err(format!("{identity} is too old: 1.0 or later is needed"))
        }
        Engine::Kata if !kvm => Err(format!(
            "{identity} needs hardware virtualization: /dev/kvm cannot be opened (switch it on in the firmware, \
             load kvm_intel or kvm_amd)"
        )),
        Engine::Kata if version.0 >= 2 => Err(format!(
            "{identity} has no OCI command line: Kata 2 and later run behind containerd \
             (--container-runtime-endpoint)"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtc_20_engines_are_known_by_what_they_print() {
        for (text, engine, version) in [
            ("runc version 1.1.5+ds1\ncommit: x\n", Engine::Runc, "1.1.5+ds1"),
            ("crun version 1.8.1\ncommit: x", Engine::Crun, "1.8.1"),
            ("runsc version release-20240513.0\nspec: 1.1.0-rc.1", Engine::Runsc, "release-20240513.0"),
            ("kata-runtime  : 1.13.0\n   commit   : x", Engine::Kata, "1.13.0"),
            ("youki version: 0.5.7", Engine::Other, "0.5.7"),
        ] {
            let identity = parse(text).expect(text);
            assert_eq!((identity.engine, identity.version.as_str()), (engine, version));
        }
        for garbage in
            ["", "\n", "hello", "usage: thing [options]", "a b c", "\u{1b}[2J version 1", "bash version x"]
        {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn rtc_20_what_is_of_the_moment_is_not_held_against_it() {
        let kind = |number: i32| Unusable::of(&io::Error::from_raw_os_error(number), String::new());
        for number in [libc::EAGAIN, libc::ENOMEM, libc::ETXTBSY, libc::EMFILE, libc::EIO] {
            assert_eq!(kind(number), Unusable::NotNow(String::new()), "{number}");
        }
        for number in [libc::ENOENT, libc::EACCES, libc::ENOEXEC] {
            assert_eq!(kind(number), Unusable::Wrong(String::new()), "{number}");
        }
    }

    #[test]
    fn rtc_20_what_an_engine_lacks_is_told() {
        let identity = |text: &str| parse(text).expect("an engine");
        assert_eq!(check(&identity("runc version 1.1.5"), false), Ok(()));
        let error = check(&identity("runc version 0.1.1"), false).expect_err("too old");
        assert_eq!(error, "runc 0.1.1 is too old: 1.0 or later is needed");
        let kata = identity("kata-runtime  : 1.13.0");
        assert!(check(&kata, false).expect_err("no KVM").contains("/dev/kvm cannot be opened"));
        assert_eq!(check(&kata, true), Ok(()));
        assert!(
            check(&identity("kata-runtime  : 3.2.0"), true)
                .expect_err("no runc")
                .contains("OCI command line")
        );
    }
}

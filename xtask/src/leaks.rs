//! Whether anything was left on the machine: mounts, interfaces, cgroups, processes, rules, directories.
//!
//! Tests give what they make a name that begins with `smpt`; what a plain `sampan server` makes is `sampan0` and
//! lies below `/run/sampan` and `/var/lib/sampan`. A name is no leak while somebody owns it: a running server or
//! `sampan run` that has it on its command line, or the test process whose pid is in it (`smpt-<pid>-<n>`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

/// How the names of tests begin.
const TESTS: &str = "smpt";
/// What a server without options of its own makes.
const USUAL: [&str; 3] = ["sampan0", "/run/sampan", "/var/lib/sampan"];

/// Fails with a list of what was found.
pub(crate) fn check() -> Result<()> {
    let owned = Owned::now();
    let mut left = Vec::new();
    let unnamed = std::env::temp_dir().join(".tmp").display().to_string();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        // Its own line does not say whose a mount is: what is mounted where does.
        let words: Vec<&str> = line.split(' ').collect();
        let target = words.get(4).copied().unwrap_or(line);
        // `tempfile`'s own names say nothing of their owner; a mount in there is a test's whose process was killed.
        if owned.is_leak(target) || target.starts_with(&unnamed) {
            left.push(format!("mount {target}"));
        }
    }
    let mut take = |kind: &str, text: &str| {
        if owned.is_leak(text) {
            left.push(format!("{kind} {text}"));
        }
    };
    entries(Path::new("/sys/class/net")).iter().for_each(|path| take("interface", &name(path)));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = tables.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    tables.lines().for_each(|line| take("rules:", line));
    let hierarchies = entries(Path::new("/sys/fs/cgroup"));
    let hierarchies = hierarchies.into_iter().chain([PathBuf::from("/sys/fs/cgroup")]);
    for cgroup in hierarchies.flat_map(|dir| entries(&dir)).filter(|path| path.is_dir()) {
        take("cgroup", &cgroup.display().to_string());
    }
    for (pid, line) in processes() {
        take(&format!("process {pid}:"), &line);
    }
    // Only those of tests that are over: people have directories of such names too.
    for dir in entries(&std::env::temp_dir()).into_iter().filter(|dir| owner(&name(dir)).is_some()) {
        take("directory", &dir.display().to_string());
    }
    left.extend(orphans());
    if left.is_empty() {
        eprintln!("==> nothing was left on the machine");
        return Ok(());
    }
    left.sort();
    left.dedup();
    bail!("left on the machine:\n  {}", left.join("\n  "))
}

/// The names that somebody still uses.
struct Owned {
    names: BTreeSet<String>,
    /// Whether a server with the usual names runs.
    usual: bool,
}

impl Owned {
    fn now() -> Self {
        let mut owned = Self { names: BTreeSet::new(), usual: false };
        for (_, line) in processes() {
            let mut words = line.split(' ');
            if !matches!(words.nth(1), Some("server" | "run")) {
                continue;
            }
            let names = test_names(&line);
            owned.usual |= names.is_empty();
            owned.names.extend(names);
        }
        owned
    }

    fn is_leak(&self, text: &str) -> bool {
        let names = test_names(text);
        if names.is_empty() {
            let usual = USUAL.iter().any(|usual| {
                text.match_indices(usual).any(|(at, _)| ends_name(text[at + usual.len()..].chars().next()))
            });
            return usual && !self.usual;
        }
        !names.iter().any(|name| self.names.contains(name) || owner(name).is_some_and(lives))
    }
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The pid in `smpt-<pid>-<n>` and `smpt<pid>p`.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(TESTS)?.trim_start_matches('-');
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// `smpt-12-3` of `/tmp/smpt-12-3-a8Xd/run`: what belongs together has the same two parts after the mark.
fn test_names(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices(TESTS).map(|(at, _)| &text[at..]);
    starts
        .map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next().unwrap_or(rest))
        .map(short)
        .collect()
}

fn short(name: &str) -> String {
    name.split('-').take(3).collect::<Vec<_>>().join("-")
}

fn ends_name(next: Option<char>) -> bool {
    next.is_none_or(|next| !next.is_ascii_alphanumeric())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Command lines of the binary and of what tests start beside it.
fn processes() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for dir in entries(Path::new("/proc")) {
        let Ok(pid) = name(&dir).parse::<u32>() else { continue };
        let Ok(line) = fs::read(dir.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().map(Path::new).map(name).unwrap_or_default();
        if ["sampan", "docker-registry"].contains(&program.as_str()) {
            found.push((pid, line.trim_end().to_owned()));
        }
    }
    found
}

/// Ends of links that lost their bridge: their names are hashes, so nobody can say whose they were.
fn orphans() -> Vec<String> {
    let ours = |path: &PathBuf| {
        let name = name(path);
        let hash = name.strip_prefix("veth");
        hash.is_some_and(|hash| hash.len() == 10 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && !path.join("master").exists()
    };
    entries(Path::new("/sys/class/net"))
        .iter()
        .filter(|path| ours(path))
        .map(|path| format!("interface {}", name(path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_together_by_mark_and_owner() {
        let names = test_names("/tmp/smpt-12-3-a8Xd/run/shims/x /tmp/smpt-12-3-a8Xd/data");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["smpt-12-3"]);
        assert_eq!((owner("smpt-12-3"), owner("smpt77p"), owner("smpt-try")), (Some(12), Some(77), None));
        let owned = Owned { names: ["smpt-try".to_owned()].into(), usual: false };
        assert!(
            !owned.is_leak("smpt-try")
                && owned.is_leak("table ip sampan0")
                && owned.is_leak("/run/sampan/ns")
        );
        assert!(!owned.is_leak("/home/me/sampan") && !owned.is_leak("docker0"));
        assert!(
            owned.is_leak("/tmp/smpt-4000000000-1-x/data")
                && !owned.is_leak(&format!("smpt-{}-0", std::process::id()))
        );
    }
}

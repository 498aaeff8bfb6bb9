//! Whether anything was left on the machine: mounts, interfaces, namespaces, cgroups, processes, rules.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

/// Names that tests and demos use for what they make.
const MARKS: [&str; 2] = ["sampan", "smpt"];

/// Fails with a list of what was found.
pub(crate) fn check() -> Result<()> {
    let mut left = Vec::new();
    left.extend(lines("mount", &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()));
    left.extend(names("interface", Path::new("/sys/class/net")));
    left.extend(cgroups(Path::new("/sys/fs/cgroup"), 0));
    left.extend(lines("rule", &output("nft", &["list", "tables"])));
    left.extend(processes());
    if left.is_empty() {
        eprintln!("==> nothing was left on the machine");
        return Ok(());
    }
    bail!("left on the machine:\n  {}", left.join("\n  "))
}

fn marked(text: &str) -> bool {
    MARKS.iter().any(|mark| text.contains(mark))
}

fn lines(kind: &str, text: &str) -> Vec<String> {
    text.lines().filter(|line| marked(line)).map(|line| format!("{kind}: {line}")).collect()
}

fn names(kind: &str, dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| marked(name)).map(|name| format!("{kind}: {name}")).collect()
}

/// Cgroups of our making, in every hierarchy, down to where `kubepods` may be.
fn cgroups(dir: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if marked(&name) {
            found.push(format!("cgroup: {}", path.display()));
        } else if depth < 2 {
            found.extend(cgroups(&path, depth + 1));
        }
    }
    found
}

fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path().join("exe")) else { continue };
        if target.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sampan")) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process {}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

//! Finding a command in the container's root, with the words that runc (Go's `exec.LookPath`) has for it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

/// A passwd file larger than this is not searched further, in bytes.
const MAX_PASSWD: u64 = 1 << 20;

/// The file to execute for `command`.
pub(super) fn find(command: &str, env: &[String]) -> Result<String, String> {
    let quoted = format!("{command:?}");
    if command.contains('/') {
        return match check(command) {
            Ok(()) => Ok(command.to_owned()),
            Err(why) => Err(format!("exec: {quoted}: {why}")),
        };
    }
    // As for execvp, the last of several wins nothing: getenv finds the first.
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
    for dir in path.unwrap_or_default().split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let file = format!("{}/{command}", dir.trim_end_matches('/'));
        if !command.is_empty() && check(&file).is_ok() {
            return Ok(file);
        }
    }
    Err(format!("exec: {quoted}: executable file not found in $PATH"))
}

fn check(file: &str) -> Result<(), String> {
    let metadata = fs::metadata(file).map_err(|error| format!("stat {file}: {}", words(&error)))?;
    if metadata.is_dir() {
        return Err("is a directory".into());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("permission denied".into());
    }
    Ok(())
}

/// The C library's words for an error number, without Rust's "(os error N)", and small as Go has them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// The home directory of a user by the container's `/etc/passwd`; `/` when it is not there.
///
/// Read by hand: the C library would load the container's NSS modules into this process.
pub(super) fn home(uid: u32) -> String {
    let mut text = Vec::new();
    let file = fs::File::open("/etc/passwd");
    let read = file.and_then(|file| file.take(MAX_PASSWD).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let uid = uid.to_string();
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home = lines.find(|fields| fields.len() > 5 && fields[2] == uid);
    let home = home.map(|fields| fields[5].to_owned());
    match (read, home) {
        (Ok(_), Some(home)) if !home.is_empty() => home,
        _ => "/".into(),
    }
}

//! The part of tar that `kubectl cp` uses: `tar cf - PATH...` and `tar xf - -C DIRECTORY`.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use crate::{Failure, about};

const USAGE: &str = "tar cf FILE [-C DIR] PATH... | tar xf FILE [-C DIR] | tar tf FILE";

pub(super) fn run(args: &[String]) -> Result<ExitCode, Failure> {
    let (first, rest) = args.split_first().ok_or_else(|| Failure::usage(USAGE))?;
    let mode = first.trim_start_matches('-');
    let (mut file, mut directory, mut paths) = ("-", ".", Vec::new());
    let mut rest = rest.iter().map(String::as_str);
    if mode.contains('f') {
        file = rest.next().ok_or_else(|| Failure::usage(USAGE))?;
    }
    while let Some(arg) = rest.next() {
        match arg {
            "-C" => directory = rest.next().ok_or_else(|| Failure::usage(USAGE))?,
            "-f" => file = rest.next().ok_or_else(|| Failure::usage(USAGE))?,
            // Owner and mode are kept or not by what the caller may do; kubectl passes these two.
            "--no-same-permissions" | "--no-same-owner" | "--" => {}
            _ => paths.push(arg),
        }
    }
    let kept = mode.contains('p') || rustix::process::geteuid().is_root();
    match mode.chars().find(|c| "cxt".contains(*c)) {
        Some('c') => create(file, directory, &paths),
        Some('x') => extract(file, directory, kept && !args.iter().any(|arg| arg == "--no-same-owner")),
        Some('t') => list(file),
        _ => Err(Failure::usage(USAGE)),
    }
}

fn input(file: &str) -> Result<Box<dyn Read>, Failure> {
    Ok(match file {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(File::open(path).map_err(about(path))?),
    })
}

fn create(file: &str, directory: &str, paths: &[&str]) -> Result<ExitCode, Failure> {
    let output: Box<dyn Write> = match file {
        "-" => Box::new(io::stdout().lock()),
        path => Box::new(File::create(path).map_err(about(path))?),
    };
    let mut archive = tar::Builder::new(output);
    archive.follow_symlinks(false);
    for path in paths {
        // As the usual tar: names in an archive are relative.
        let name = path.trim_start_matches('/');
        let name = if name.is_empty() { "." } else { name };
        let source = Path::new(directory).join(path);
        let metadata = source.symlink_metadata().map_err(about(path))?;
        let added = match metadata.is_dir() {
            true => archive.append_dir_all(name, &source),
            false => archive.append_path_with_name(&source, name),
        };
        added.map_err(about(path))?;
    }
    archive.finish().map_err(about(file))?;
    Ok(ExitCode::SUCCESS)
}

fn extract(file: &str, directory: &str, keep_owner: bool) -> Result<ExitCode, Failure> {
    let mut archive = tar::Archive::new(input(file)?);
    archive.set_preserve_ownerships(keep_owner);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    archive.unpack(directory).map_err(about(directory))?;
    Ok(ExitCode::SUCCESS)
}

fn list(file: &str) -> Result<ExitCode, Failure> {
    let mut archive = tar::Archive::new(input(file)?);
    for entry in archive.entries().map_err(about(file))? {
        let entry = entry.map_err(about(file))?;
        println!("{}", String::from_utf8_lossy(&entry.path_bytes()));
    }
    Ok(ExitCode::SUCCESS)
}

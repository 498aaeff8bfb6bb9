//! Tools that look at files and directories.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::ExitCode,
};

use crate::{Failure, about};

pub(super) fn cat(args: &[String]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let standard_input = ["-".to_owned()];
    let files = if args.is_empty() { &standard_input[..] } else { args };
    for name in files {
        let mut input: Box<dyn Read> = match name.as_str() {
            "-" => Box::new(io::stdin().lock()),
            path => Box::new(File::open(path).map_err(about(path))?),
        };
        copy_unbuffered(&mut input, &mut [&mut out]).map_err(about(name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies what is read at once, so that an interactive peer sees each line when it was written.
pub(super) fn copy_unbuffered(input: &mut dyn Read, outputs: &mut [&mut dyn Write]) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for output in outputs.iter_mut() {
            output.write_all(&buffer[..read])?;
            output.flush()?;
        }
    }
}

pub(super) fn tee(args: &[String]) -> Result<ExitCode, Failure> {
    let (append, files) = match args.split_first() {
        Some((first, rest)) if first == "-a" => (true, rest),
        _ => (false, args),
    };
    let mut open = OpenOptions::new();
    open.create(true).write(true).append(append).truncate(!append);
    let mut files =
        files.iter().map(|path| open.open(path).map_err(about(path))).collect::<Result<Vec<_>, _>>()?;
    let mut out = io::stdout().lock();
    let mut outputs: Vec<&mut dyn Write> = vec![&mut out];
    outputs.extend(files.iter_mut().map(|file| file as &mut dyn Write));
    copy_unbuffered(&mut io::stdin().lock(), &mut outputs).map_err(about("copying"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn touch(args: &[String]) -> Result<ExitCode, Failure> {
    for path in args {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(about(path))?;
        file.set_modified(std::time::SystemTime::now()).map_err(about(path))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn mkdir(args: &[String]) -> Result<ExitCode, Failure> {
    let (parents, paths) = match args.split_first() {
        Some((first, rest)) if first == "-p" => (true, rest),
        _ => (false, args),
    };
    for path in paths {
        let made = if parents { fs::create_dir_all(path) } else { fs::create_dir(path) };
        made.map_err(about(path))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn rm(args: &[String]) -> Result<ExitCode, Failure> {
    let options: String = args.iter().take_while(|arg| arg.starts_with('-')).map(|arg| &arg[1..]).collect();
    if let Some(unknown) = options.chars().find(|option| !"rRf".contains(*option)) {
        return Err(Failure::new(format!("unknown option -{unknown}; usage: rm [-rf] PATH...")));
    }
    let (recursive, force) = (options.contains(['r', 'R']), options.contains('f'));
    for path in args.iter().skip_while(|arg| arg.starts_with('-')) {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() && recursive => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) if force && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(about(path))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists names, one a line; `-l` with type, mode, owner, size; `-a` with hidden ones.
pub(super) fn ls(args: &[String]) -> Result<ExitCode, Failure> {
    let options: String = args.iter().filter(|arg| arg.starts_with('-')).map(|arg| &arg[1..]).collect();
    if let Some(unknown) = options.chars().find(|option| !"la1dn".contains(*option)) {
        return Err(Failure::new(format!("unknown option -{unknown}; usage: ls [-la1dn] [PATH...]")));
    }
    let here = [".".to_owned()];
    let paths: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let paths = if paths.is_empty() { here.iter().collect() } else { paths };
    let mut out = io::stdout().lock();
    for (index, path) in paths.iter().enumerate() {
        let metadata = fs::symlink_metadata(path).map_err(about(path))?;
        let is_dir =
            metadata.is_dir() || fs::metadata(path).is_ok_and(|m| m.is_dir() && !options.contains('l'));
        if !is_dir || options.contains('d') {
            line(&mut out, Path::new(path), path, options.contains('l'))?;
            continue;
        }
        if paths.len() > 1 {
            let gap = if index > 0 { "\n" } else { "" };
            writeln!(out, "{gap}{path}:").map_err(about("standard output"))?;
        }
        let entries = fs::read_dir(path).map_err(about(path))?;
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let shown = name.to_string_lossy();
            if !shown.starts_with('.') || options.contains('a') {
                line(&mut out, &Path::new(path).join(&name), &shown, options.contains('l'))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(out: &mut impl Write, path: &Path, shown: &str, long: bool) -> Result<(), Failure> {
    if !long {
        return writeln!(out, "{shown}").map_err(about("standard output"));
    }
    let metadata = fs::symlink_metadata(path).map_err(about(path.display()))?;
    let target = fs::read_link(path).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        _ => '-',
    };
    let mode = metadata.permissions().mode();
    let bits: String =
        (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect();
    let (links, uid, gid, size) = (metadata.nlink(), metadata.uid(), metadata.gid(), metadata.len());
    writeln!(out, "{kind}{bits} {links} {uid} {gid} {size:>9} {shown}{target}")
        .map_err(about("standard output"))
}

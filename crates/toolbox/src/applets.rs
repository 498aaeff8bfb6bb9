//! The table of tools, and those that are a few lines long.

mod files;
mod httpd;
mod nc;
mod tar;
mod wget;

use std::{
    env,
    io::{self, Write},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::{Failure, about, signals};

/// One tool.
pub struct Applet {
    /// The name of its link in the image's `/bin`.
    pub name: &'static str,
    pub(crate) run: fn(&[String]) -> Result<ExitCode, Failure>,
}

/// All tools, by name.
static APPLETS: &[Applet] = &[
    Applet { name: "cat", run: files::cat },
    Applet { name: "echo", run: echo },
    Applet { name: "env", run: env },
    Applet { name: "false", run: |_| Ok(ExitCode::FAILURE) },
    Applet { name: "hostname", run: hostname },
    Applet { name: "httpd", run: httpd::run },
    Applet { name: "id", run: id },
    Applet { name: "kill", run: kill },
    Applet { name: "ls", run: files::ls },
    Applet { name: "mkdir", run: files::mkdir },
    Applet { name: "nc", run: nc::run },
    Applet { name: "rm", run: files::rm },
    Applet { name: "sleep", run: sleep },
    Applet { name: "tar", run: tar::run },
    Applet { name: "tee", run: files::tee },
    Applet { name: "touch", run: files::touch },
    Applet { name: "true", run: |_| Ok(ExitCode::SUCCESS) },
    Applet { name: "uname", run: uname },
    Applet { name: "wget", run: wget::run },
];

impl Applet {
    /// The tool of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        APPLETS.iter().find(|applet| applet.name == name)
    }

    /// The names of all tools.
    pub fn names() -> impl Iterator<Item = &'static str> {
        APPLETS.iter().map(|applet| applet.name)
    }
}

fn echo(args: &[String]) -> Result<ExitCode, Failure> {
    let (words, end) = match args.split_first() {
        Some((first, rest)) if first == "-n" => (rest, ""),
        _ => (args, "\n"),
    };
    let mut out = io::stdout().lock();
    write!(out, "{}{end}", words.join(" ")).map_err(about("standard output"))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the environment, or runs a command with changes to it (`env A=b CMD`).
fn env(args: &[String]) -> Result<ExitCode, Failure> {
    let assignments = args.iter().take_while(|arg| arg.contains('=')).count();
    let pairs = args[..assignments].iter().filter_map(|arg| arg.split_once('='));
    match &args[assignments..] {
        [] => {
            let mut out = io::stdout().lock();
            let inherited =
                env::vars_os().map(|(k, v)| (k.to_string_lossy().into(), v.to_string_lossy().into()));
            let added = pairs.map(|(k, v)| (k.to_owned(), v.to_owned()));
            for (key, value) in inherited.chain(added) {
                let (key, value): (String, String) = (key, value);
                writeln!(out, "{key}={value}").map_err(about("standard output"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        [command, args @ ..] => {
            let status = Command::new(command).args(args).envs(pairs).status().map_err(about(command))?;
            Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
        }
    }
}

fn hostname(args: &[String]) -> Result<ExitCode, Failure> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match args {
        [] => println!("{name}"),
        // The full name is what /etc/hosts says of the short one, as in glibc's files lookup.
        [option] if option == "-f" => {
            let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            let words = |line: &str| line.split('#').next().unwrap_or("").to_owned();
            let full = hosts.lines().map(words).find_map(|line| {
                let names: Vec<&str> = line.split_whitespace().skip(1).collect();
                names.contains(&name.as_str()).then(|| names[0].to_owned())
            });
            println!("{}", full.unwrap_or(name));
        }
        [option] if option == "-i" => {
            let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            let ip = hosts.lines().find(|line| line.split_whitespace().skip(1).any(|word| word == name));
            println!("{}", ip.and_then(|line| line.split_whitespace().next()).unwrap_or("127.0.0.1"));
        }
        _ => return Err(Failure::usage("hostname [-f | -i]")),
    }
    Ok(ExitCode::SUCCESS)
}

fn id(args: &[String]) -> Result<ExitCode, Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut groups: Vec<u32> = vec![gid];
    let listed = rustix::process::getgroups().map_err(about("groups"))?;
    groups.extend(listed.iter().map(|group| group.as_raw()).filter(|group| *group != gid));
    let named = |file: &str, id: u32| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line =
            text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string())).map(str::to_owned);
        line.and_then(|line| line.split(':').next().map(|name| format!("{id}({name})")))
            .unwrap_or_else(|| id.to_string())
    };
    match args {
        [] => {
            let groups: Vec<String> = groups.iter().map(|group| named("/etc/group", *group)).collect();
            let (user, group) = (named("/etc/passwd", uid), named("/etc/group", gid));
            println!("uid={user} gid={group} groups={}", groups.join(","));
        }
        [option] if option == "-u" => println!("{uid}"),
        [option] if option == "-g" => println!("{gid}"),
        [option] if option == "-G" => {
            println!("{}", groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
        }
        _ => return Err(Failure::usage("id [-u | -g | -G]")),
    }
    Ok(ExitCode::SUCCESS)
}

fn kill(args: &[String]) -> Result<ExitCode, Failure> {
    const USAGE: &str = "kill [-NUMBER] PID...";
    let (signal, pids) = match args.split_first() {
        Some((first, rest)) if first.starts_with('-') => {
            let number: i32 = first[1..].parse().map_err(|_| Failure::usage(USAGE))?;
            (Signal::from_named_raw(number).ok_or_else(|| Failure::usage(USAGE))?, rest)
        }
        _ => (Signal::TERM, args),
    };
    if pids.is_empty() {
        return Err(Failure::usage(USAGE));
    }
    for text in pids {
        let pid = text.parse().ok().and_then(Pid::from_raw).ok_or_else(|| Failure::usage(USAGE))?;
        rustix::process::kill_process(pid, signal).map_err(about(text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Unlike coreutils' it ends on SIGTERM also as the init of a container (exit code 143).
fn sleep(args: &[String]) -> Result<ExitCode, Failure> {
    const USAGE: &str = "sleep NUMBER[s|m|h|d]... | sleep infinity";
    if args.is_empty() {
        return Err(Failure::usage(USAGE));
    }
    let mut total = Duration::ZERO;
    for arg in args {
        let (number, unit) = match arg.strip_suffix(['s', 'm', 'h', 'd']) {
            Some(number) => (number, &arg[number.len()..]),
            None => (arg.as_str(), "s"),
        };
        let scale = match unit {
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => 1.0,
        };
        let seconds: f64 = number.parse().map_err(|_| Failure::usage(USAGE))?;
        let part = Duration::try_from_secs_f64(seconds * scale).unwrap_or(Duration::MAX);
        total = total.saturating_add(part);
    }
    signals::end_on_termination().map_err(about("signals"))?;
    thread::sleep(total);
    Ok(ExitCode::SUCCESS)
}

fn uname(args: &[String]) -> Result<ExitCode, Failure> {
    let host = rustix::system::uname();
    let part = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let text = match args {
        [] => part(host.sysname()),
        [option] => match option.as_str() {
            "-a" => [host.sysname(), host.nodename(), host.release(), host.version(), host.machine()]
                .map(part)
                .join(" "),
            "-n" => part(host.nodename()),
            "-r" => part(host.release()),
            "-m" => part(host.machine()),
            _ => return Err(Failure::usage("uname [-a | -n | -r | -m]")),
        },
        _ => return Err(Failure::usage("uname [-a | -n | -r | -m]")),
    };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

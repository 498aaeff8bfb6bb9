//! Programs inside containers.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args)
}

fn run(args: &[&str]) -> ExitCode {
    let out = |text: &str| {
        let _ = io::stdout().write_all(text.as_bytes());
        let _ = io::stdout().flush();
    };
    match args {
        ["echo", words @ ..] => out(&format!("{}\n", words.join(" "))),
        ["print", text] => out(text),
        ["error", words @ ..] => eprintln!("{}", words.join(" ")),
        ["sleep", seconds] => std::thread::sleep(Duration::from_secs_f32(seconds.parse().unwrap())),
        // A child that outlives this process and holds its output.
        ["leave", rest @ ..] => {
            let child = std::process::Command::new("/t").arg("applet").args(rest).spawn();
            out(&format!("left {}\n", child.is_ok()));
        }
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        // Several, one after the other: `then A B -- C D`.
        ["then", rest @ ..] => {
            let mut code = ExitCode::SUCCESS;
            for part in rest.split(|word| *word == "--") {
                code = run(part);
            }
            return code;
        }
        ["cat"] => {
            let _ = io::copy(&mut io::stdin(), &mut io::stdout());
        }
        ["lines"] => {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                out(&format!("got {line}\n"));
                if line == "quit" {
                    break;
                }
            }
        }
        ["spam", bytes] => {
            let line = [b"x".repeat(99), b"\n".to_vec()].concat();
            let mut left: usize = bytes.parse().unwrap();
            let mut stdout = io::stdout().lock();
            while left > 0 {
                let count = left.min(line.len());
                if stdout.write_all(&line[..count]).is_err() {
                    return ExitCode::from(7);
                }
                left -= count;
            }
        }
        ["long", bytes] => out(&format!("{}\n", "y".repeat(bytes.parse().unwrap()))),
        ["alloc", megabytes] => {
            let mut kept = Vec::new();
            for _ in 0..megabytes.parse::<usize>().unwrap() {
                kept.push(vec![1_u8; 1 << 20]);
            }
            out(&format!("{}\n", kept.len()));
        }
        ["env"] => {
            for (name, value) in std::env::vars() {
                out(&format!("{name}={value}\n"));
            }
        }
        ["read", path] => match std::fs::read(path) {
            Ok(bytes) => {
                let _ = io::stdout().write_all(&bytes);
            }
            Err(error) => out(&format!("error: {error}\n")),
        },
        ["write", path, text] => match std::fs::write(path, text) {
            Ok(()) => out("written\n"),
            Err(error) => out(&format!("error: {error}\n")),
        },
        ["link", path] => out(&format!("{}\n", std::fs::read_link(path).unwrap().display())),
        ["size"] => {
            let size = rustix::termios::tcgetwinsize(io::stdin()).unwrap();
            out(&format!("{}x{}\n", size.ws_col, size.ws_row));
        }
        ["fds"] => {
            let mut fds: Vec<_> = std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .flatten()
                .map(|entry| (entry.file_name(), std::fs::read_link(entry.path())))
                .filter_map(|(name, link)| Some(format!("{}={}", name.display(), link.ok()?.display())))
                .collect();
            fds.sort();
            out(&format!("{}\n", fds.join(" ")));
        }
        ["hostname"] => {
            out(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap());
        }
        ["chroot"] => {
            let result = rustix::process::chroot("/");
            out(&format!("{result:?}\n"));
        }
        ["wait-stdin"] => {
            let _ = io::stdin().read(&mut [0]);
        }
        other => {
            eprintln!("no applet {other:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

//! `probe`: the program that looks around inside the test containers.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["write", path, text] => done(std::fs::write(path, text)),
        ["pwd"] => {
            println!("{}", std::env::current_dir().unwrap_or_default().display());
            ExitCode::SUCCESS
        }
        // Both streams, for logs and execs.
        ["both", out, err] => {
            println!("{out}");
            eprintln!("{err}");
            ExitCode::SUCCESS
        }
        // Ends only by SIGKILL.
        ["stubborn"] => {
            // SAFETY: ignoring a signal.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            println!("ready");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        // Ends with 7 on SIGTERM and 8 on SIGQUIT; as pid 1 only signals with handlers arrive.
        ["polite"] => {
            for signal in [libc::SIGTERM, libc::SIGQUIT] {
                // SAFETY: the handler only calls _exit.
                unsafe { libc::signal(signal, leave as *const () as libc::sighandler_t) };
            }
            println!("ready");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        ["eat", megabytes] => {
            let mut kept = Vec::new();
            for _ in 0..megabytes.parse::<usize>().unwrap_or(0) {
                kept.push(vec![1u8; 1 << 20]);
            }
            println!("{} MiB", kept.len());
            ExitCode::SUCCESS
        }
        // One line per interval, numbered.
        ["count", millis] => {
            for number in 0u64.. {
                println!("line {number}");
                let _ = std::io::stdout().flush();
                std::thread::sleep(Duration::from_millis(millis.parse().unwrap_or(100)));
            }
            ExitCode::SUCCESS
        }
        // Copies stdin, then says that it ended.
        ["echo-stdin"] => {
            let mut buffer = [0u8; 4096];
            loop {
                match std::io::stdin().read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let _ = std::io::stdout().write_all(&buffer[..count]);
                        let _ = std::io::stdout().flush();
                    }
                }
            }
            println!("end of input");
            ExitCode::SUCCESS
        }
        ["winsize"] => {
            for _ in 0..100 {
                let size = rustix::termios::tcgetwinsize(std::io::stdin());
                if let Ok(size) = size
                    && size.ws_col > 0
                {
                    println!("{}x{}", size.ws_col, size.ws_row);
                    return ExitCode::SUCCESS;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            ExitCode::FAILURE
        }
        ["flood", bytes] => {
            let chunk = [b'x'; 65_536];
            let mut left = bytes.parse::<usize>().unwrap_or(0);
            while left > 0 {
                let count = left.min(chunk.len());
                if std::io::stdout().write_all(&chunk[..count]).is_err() {
                    return ExitCode::FAILURE;
                }
                left -= count;
            }
            ExitCode::SUCCESS
        }
        // Whether a system call is refused: the name and the error.
        ["unshare"] => {
            // SAFETY: a new user namespace for this process, which ends next.
            let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
            println!("{}", if result == 0 { "allowed" } else { "refused" });
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("probe: {other:?}");
            ExitCode::from(98)
        }
    }
}

extern "C" fn leave(signal: libc::c_int) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { libc::_exit(if signal == libc::SIGTERM { 7 } else { 8 }) }
}

fn done(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

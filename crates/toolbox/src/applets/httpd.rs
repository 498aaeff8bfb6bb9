//! A small web server: files of a directory, and a few answers of its own for trying probes and Services.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use crate::{Failure, about, signals};

const USAGE: &str = "httpd [-p PORT] [-h DIRECTORY] [-t TEXT]";
/// A request's head is at most this long, in bytes.
const HEAD_LIMIT: u64 = 16 * 1024;
/// How many connections are served at once.
const CONNECTIONS: usize = 64;

struct Site {
    root: PathBuf,
    /// What `/` answers; the host's name when neither a text nor an index.html is there.
    text: Option<String>,
}

/// Serves until SIGTERM. `/healthz` answers `ok`, `/hostname` the host's name, `/env` the environment,
/// `/status/N` the status N.
pub(super) fn run(args: &[String]) -> Result<ExitCode, Failure> {
    let (mut port, mut site) = (8080, Site { root: ".".into(), text: None });
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| Failure::usage(USAGE))?;
        match option.as_str() {
            "-p" => port = value.parse().map_err(about(format!("port {value}")))?,
            "-h" => site.root = value.into(),
            "-t" => site.text = Some(value.clone()),
            _ => return Err(Failure::usage(USAGE)),
        }
    }
    signals::end_on_termination().map_err(about("signals"))?;
    // The wildcard of IPv6 takes both families; a kernel without IPv6 gets that of IPv4.
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.map_err(about(format!("port {port}")))?;
    println!("listening on port {port}");
    let (site, slots) = (std::sync::Arc::new(site), std::sync::Arc::new(()));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if std::sync::Arc::strong_count(&slots) > CONNECTIONS {
            continue;
        }
        let (site, slot) = (site.clone(), slots.clone());
        let _ = thread::Builder::new().spawn(move || {
            let _slot = slot;
            let _ = serve(&stream, &site);
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(stream: &TcpStream, site: &Site) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut lines = BufReader::new(stream.take(HEAD_LIMIT)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    println!("{method} {target}");
    match method {
        "GET" | "HEAD" | "POST" => route(stream, site, path),
        _ => answer(stream, 405, "method not allowed\n"),
    }
}

fn route(stream: &TcpStream, site: &Site, path: &str) -> io::Result<()> {
    let host = || format!("{}\n", rustix::system::uname().nodename().to_string_lossy());
    match path {
        "/healthz" => answer(stream, 200, "ok\n"),
        "/hostname" => answer(stream, 200, &host()),
        "/env" => {
            let env = std::env::vars_os();
            let lines = env.map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy()));
            answer(stream, 200, &lines.collect::<String>())
        }
        _ => {
            if let Some(code) = path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
                return answer(stream, code, "");
            }
            if let Some(text) = site.text.as_ref().filter(|_| path == "/") {
                return answer(stream, 200, &format!("{text}\n"));
            }
            let relative = Path::new(path.trim_start_matches('/'));
            if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
                return answer(stream, 403, "forbidden\n");
            }
            let mut file = site.root.join(relative);
            if file.is_dir() {
                file.push("index.html");
            }
            match File::open(&file) {
                Ok(content) => send_file(stream, content),
                Err(_) if path == "/" => answer(stream, 200, &host()),
                Err(_) => answer(stream, 404, "not found\n"),
            }
        }
    }
}

fn send_file(mut stream: &TcpStream, mut file: File) -> io::Result<()> {
    let length = file.metadata()?.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    io::copy(&mut file, &mut stream).map(drop)
}

fn answer(mut stream: &TcpStream, code: u16, text: &str) -> io::Result<()> {
    let reason = match code {
        200 => "OK",
        404 => "Not Found",
        500 => "Internal Server Error",
        _ => "Status",
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {code} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

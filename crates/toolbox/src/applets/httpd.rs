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

const USAGE: &str = "httpd [-p PORT] [-h DIRECTORY] [-t TEXT] [-b BOOK] [-x http://HOST[:PORT]]";
/// A request's head is at most this long, in bytes.
const HEAD_LIMIT: u64 = 16 * 1024;
/// What may be posted, in bytes.
const BODY_LIMIT: u64 = 64 * 1024;
/// How many connections are served at once.
const CONNECTIONS: usize = 64;

struct Site {
    root: PathBuf,
    /// What `/` answers; the host's name when neither a text nor an index.html is there.
    text: Option<String>,
    /// A file whose lines `/` shows, and to which it adds what is posted.
    book: Option<PathBuf>,
    /// A server that answers everything but `/healthz`.
    behind: Option<String>,
}

/// What a client wants.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    body: Vec<u8>,
}

/// Serves until SIGTERM. `/healthz` answers `ok`, `/hostname` the host's name, `/env` the environment,
/// `/status/N` the status N.
pub(super) fn run(args: &[String]) -> Result<ExitCode, Failure> {
    let (mut port, mut site) = (8080, Site { root: ".".into(), text: None, book: None, behind: None });
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| Failure::usage(USAGE))?;
        match option.as_str() {
            "-p" => port = value.parse().map_err(about(format!("port {value}")))?,
            "-h" => site.root = value.into(),
            "-t" => site.text = Some(value.clone()),
            "-b" => site.book = Some(value.into()),
            "-x" => site.behind = Some(value.clone()),
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
    let mut reader = BufReader::new(stream);
    let mut head = reader.by_ref().take(HEAD_LIMIT).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    let mut length = 0;
    for line in head {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    // Whose address it is tells whether the network changed it on the way.
    let from = stream.peer_addr().map_or_else(|_| "-".to_owned(), |from| from.ip().to_string());
    println!("{from} {method} {target}");
    if length > BODY_LIMIT {
        return answer(stream, 413, "too long\n");
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let request = Request { method, target, body };
    match (method, &site.behind, &site.book) {
        ("GET" | "HEAD" | "POST", Some(behind), _) if path != "/healthz" => pass_on(stream, behind, &request),
        ("POST", _, Some(book)) if path == "/" => sign(stream, book, &request.body),
        ("GET" | "HEAD", _, Some(book)) if path == "/" => {
            answer(stream, 200, &std::fs::read_to_string(book).unwrap_or_default())
        }
        ("GET" | "HEAD" | "POST", ..) => route(stream, site, path),
        _ => answer(stream, 405, "method not allowed\n"),
    }
}

/// Adds a line to the book.
fn sign(stream: &TcpStream, book: &Path, body: &[u8]) -> io::Result<()> {
    let line = String::from_utf8_lossy(body).replace(['\r', '\n'], " ");
    let file = File::options().create(true).append(true).open(book);
    match file.and_then(|mut file| writeln!(file, "{}", line.trim())) {
        Ok(()) => answer(stream, 200, "thank you\n"),
        Err(error) => answer(stream, 500, &format!("{}: {error}\n", book.display())),
    }
}

/// Lets another server answer.
fn pass_on(mut stream: &TcpStream, behind: &str, request: &Request<'_>) -> io::Result<()> {
    let authority = behind.trim_start_matches("http://").trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let connected = port.parse().map_err(|_| format!("port {port}")).and_then(|port| {
        super::nc::connect(host, port, Duration::from_secs(5)).map_err(|failure| failure.message)
    });
    let mut server = match connected {
        Ok(server) => server,
        Err(why) => return answer(stream, 502, &format!("{behind}: {why}\n")),
    };
    let (method, target, length) = (request.method, request.target, request.body.len());
    write!(server, "{method} {target} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {length}\r\n\r\n")?;
    server.write_all(&request.body)?;
    io::copy(&mut server, &mut stream).map(drop)
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
        413 => "Content Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        _ => "Status",
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {code} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

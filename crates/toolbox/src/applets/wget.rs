//! Fetches a page over plain HTTP, and the name lookup that the network tools share.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    process::ExitCode,
    time::Duration,
};

use super::nc::connect;
use crate::{Failure, about};

const USAGE: &str =
    "wget [-q] [-S] [-T SECONDS] [-t TRIES] [-O FILE] [--post-data TEXT] http://HOST[:PORT]/PATH";

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What is asked for.
struct Wanted<'a> {
    url: &'a str,
    timeout: Duration,
    /// How often; who is not there yet may be a second later.
    tries: u32,
    show_head: bool,
    /// A file, or `-`.
    target: &'a str,
    post: Option<&'a str>,
}

/// Prints the body to standard output (unlike the usual wget: a container has nowhere to keep it); exit
/// code 1 for a status of 400 or more and for an answer that is missing or cut short, as the usual one.
pub(super) fn run(args: &[String]) -> Result<ExitCode, Failure> {
    let wanted = Wanted::parse(args)?;
    let mut tried = 1;
    let answer = loop {
        match ask(&wanted) {
            Err(_) if tried < wanted.tries => {
                tried += 1;
                std::thread::sleep(PAUSE);
            }
            answer => break answer?,
        }
    };
    let (mut reader, head) = answer;
    let mut output: Box<dyn Write> = match wanted.target {
        "-" => Box::new(io::stdout().lock()),
        path => Box::new(File::create(path).map_err(about(path))?),
    };
    copy_body(&mut reader, &head, &mut output).map_err(about(wanted.url))?;
    Ok(ExitCode::SUCCESS)
}

impl<'a> Wanted<'a> {
    fn parse(args: &'a [String]) -> Result<Self, Failure> {
        let usage = || Failure::usage(USAGE);
        let (mut url, mut timeout, mut tries) = (None, 10, 1);
        let (mut show_head, mut target, mut post) = (false, "-", None);
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            match arg {
                "-q" => {}
                "-S" => show_head = true,
                "-T" => timeout = args.next().and_then(|n| n.parse().ok()).ok_or_else(usage)?,
                "-t" => tries = args.next().and_then(|n| n.parse().ok()).ok_or_else(usage)?,
                "-O" => target = args.next().ok_or_else(usage)?,
                "-O-" | "-qO-" => target = "-",
                "--post-data" => post = Some(args.next().ok_or_else(usage)?),
                _ if url.is_none() && !arg.starts_with('-') => url = Some(arg),
                _ => return Err(usage()),
            }
        }
        let url = url.ok_or_else(usage)?;
        if url.starts_with("https://") {
            return Err(Failure::new("https is not supported by this small wget"));
        }
        Ok(Self { url, timeout: Duration::from_secs(timeout), tries, show_head, target, post })
    }
}

/// Sends the request and reads the answer's head.
fn ask(wanted: &Wanted<'_>) -> Result<(BufReader<TcpStream>, Head), Failure> {
    let url = wanted.url;
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.contains(']') => {
            (host, port.parse().map_err(about(format!("port {port}")))?)
        }
        _ => (authority, 80),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = connect(host, port, wanted.timeout)?;
    stream.set_read_timeout(Some(wanted.timeout)).map_err(about(url))?;
    let method = if wanted.post.is_some() { "POST" } else { "GET" };
    let body = wanted.post.unwrap_or_default();
    let length = wanted.post.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
    let request = format!(
        "{method} /{path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: sampan-toolbox\r\n{length}\r\n{body}"
    );
    (&stream).write_all(request.as_bytes()).map_err(about(url))?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader, wanted.show_head).map_err(about(url))?;
    if head.status >= 400 {
        return Err(Failure::new(format!("server returned error: HTTP {}", head.status)));
    }
    Ok((reader, head))
}

/// What comes before a page.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// The body's bytes, when the server says so.
    length: Option<u64>,
}

/// Reads up to the empty line. A server that hangs up before it has said a status has not answered.
fn read_head(reader: &mut impl BufRead, show: bool) -> io::Result<Head> {
    let mut text = reader.take(64 * 1024);
    let mut line = String::new();
    if text.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up without an answer"));
    }
    let status = line.strip_prefix("HTTP/").and_then(|line| line.split(' ').nth(1)?.trim().parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer in HTTP"))?;
    let mut length = None;
    while !line.trim_end().is_empty() {
        if show {
            eprint!("  {line}");
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
        line.clear();
        if text.read_line(&mut line)? == 0 {
            break;
        }
    }
    Ok(Head { status, length })
}

/// Copies the body: to its announced length, else to the server's end.
fn copy_body(reader: &mut impl Read, head: &Head, output: &mut impl Write) -> io::Result<()> {
    let Some(length) = head.length else {
        return io::copy(reader, output).map(drop);
    };
    let copied = io::copy(&mut reader.take(length), output)?;
    if copied < length {
        let what = format!("the server hung up after {copied} of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(())
}

/// The addresses of a name: a literal, /etc/hosts, then the nameservers of /etc/resolv.conf with their
/// search list. A static binary has no resolver of the C library.
pub(super) fn resolve(name: &str) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let known = hosts.lines().map(|line| line.split('#').next().unwrap_or("")).filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word == name).then_some(ip)
    });
    let known: Vec<IpAddr> = known.collect();
    if !known.is_empty() {
        return Ok(known);
    }
    if name == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let config = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let values = |key: &'static str| {
        let lines = config.lines().filter_map(move |line| line.trim().strip_prefix(key));
        lines.flat_map(str::split_whitespace)
    };
    let ndots = values("options").find_map(|option| option.strip_prefix("ndots:")?.parse().ok()).unwrap_or(1);
    let searched = values("search").map(|suffix| format!("{name}.{suffix}"));
    let mut candidates: Vec<String> = searched.filter(|_| !name.ends_with('.')).collect();
    let at = if name.matches('.').count() >= ndots { 0 } else { candidates.len() };
    candidates.insert(at, name.trim_end_matches('.').to_owned());
    for candidate in &candidates {
        for server in values("nameserver").filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            match query(server, candidate) {
                Ok(ips) if !ips.is_empty() => return Ok(ips),
                _ => {}
            }
        }
    }
    Err(Failure::new(format!("bad address `{name}`")))
}

/// Asks one nameserver for the A records of `name`.
fn query(server: IpAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect((server, 53))?;
    let mut packet = vec![0x51, 0x1a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).ok().filter(|n| *n < 64).ok_or(io::ErrorKind::InvalidInput)?);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    socket.send(&packet)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    parse(&answer[..length], packet.len()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads the A records of an answer whose question ends at `at`. Every step is checked against the end.
fn parse(answer: &[u8], mut at: usize) -> Option<Vec<IpAddr>> {
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut ips = Vec::new();
    for _ in 0..count {
        loop {
            match *answer.get(at)? {
                0 => break at += 1,
                pointer if pointer >= 0xc0 => break at += 2,
                label => at += 1 + usize::from(label),
            }
        }
        let fixed = answer.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = answer.get(at + 10..at + 10 + length)?;
        if let (1, [a, b, c, d]) = (fixed[1], data) {
            ips.push(Ipv4Addr::new(*a, *b, *c, *d).into());
        }
        at += 10 + length;
    }
    Some(ips)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question of `at` bytes, with these records (type, data).
    fn answer(records: &[(u16, &[u8])]) -> (Vec<u8>, usize) {
        let mut bytes =
            vec![0x51, 0x1a, 0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0];
        bytes.extend(b"\x01a\x00\x00\x01\x00\x01");
        let at = bytes.len();
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(*data);
        }
        (bytes, at)
    }

    #[test]
    fn address_records_are_read_and_others_skipped() {
        let (bytes, at) = answer(&[(5, b"\x01b\x00"), (1, &[10, 0, 0, 7]), (1, &[10, 0, 0, 8])]);
        let ips: Vec<String> = parse(&bytes, at).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.7", "10.0.0.8"]);
    }

    #[test]
    fn a_cut_answer_is_refused_at_every_length() {
        let (bytes, at) = answer(&[(1, &[10, 0, 0, 7])]);
        for length in at..bytes.len() {
            assert_eq!(parse(&bytes[..length], at), None, "{length}");
        }
    }

    #[test]
    fn literals_need_no_lookup() {
        assert_eq!(resolve("10.1.2.3").unwrap(), [IpAddr::from([10, 1, 2, 3])]);
        assert_eq!(resolve("::1").unwrap(), [IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]);
    }

    #[test]
    fn who_is_not_there_yet_is_asked_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            for answer in ["HTTP/1.0 502 Bad Gateway\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let page = tempfile::NamedTempFile::new().unwrap();
        let args = ["-q", "-t", "2", "-O", page.path().to_str().unwrap(), &format!("http://{address}/")];
        assert!(run(&args.map(str::to_owned)).is_ok());
        serving.join().unwrap();
        assert!(run(&["-t".to_owned(), "0x".to_owned(), "http://a/".to_owned()]).is_err());
    }

    #[test]
    fn a_head_gives_its_status_and_stops_at_the_empty_line() {
        let mut input = &b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nbody"[..];
        assert_eq!(read_head(&mut input, false).unwrap(), Head { status: 404, length: None });
        assert_eq!(input, b"body");
    }

    #[test]
    fn a_server_that_hangs_up_early_has_not_answered() {
        let said = |answer: &[u8]| {
            let (mut input, mut page) = (answer, Vec::new());
            let head = read_head(&mut input, false).map_err(|error| error.to_string())?;
            copy_body(&mut input, &head, &mut page).map_err(|error| error.to_string())?;
            Ok(String::from_utf8(page).unwrap())
        };
        assert_eq!(said(b""), Err("the server hung up without an answer".to_owned()));
        assert_eq!(said(b"SSH-2.0-x\r\n"), Err("no answer in HTTP".to_owned()));
        let head = "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n";
        let cut = said(format!("{head}pag").as_bytes());
        assert_eq!(cut, Err("the server hung up after 3 of 5 bytes".to_owned()));
        assert_eq!(said(format!("{head}page\n").as_bytes()), Ok("page\n".to_owned()));
        assert_eq!(said(b"HTTP/1.0 200 OK\r\n\r\nto the end"), Ok("to the end".to_owned()));
    }
}

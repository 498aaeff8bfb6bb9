//! Netcat: one TCP connection, joined to standard input and output.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs},
    process::ExitCode,
    thread,
    time::Duration,
};

use super::files::copy_unbuffered;
use crate::{Failure, about, signals};

const USAGE: &str = "nc [-z] [-w SECONDS] HOST PORT | nc -l [-k] -p PORT";

pub(super) fn run(args: &[String]) -> Result<ExitCode, Failure> {
    let (mut listen, mut keep, mut scan, mut timeout, mut port) = (false, false, false, 10, None);
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|n| n.parse::<u16>().ok()).ok_or_else(|| Failure::usage(USAGE));
        match arg.as_str() {
            "-l" => listen = true,
            "-lk" | "-kl" => (listen, keep) = (true, true),
            "-k" => keep = true,
            "-z" => scan = true,
            "-p" => port = Some(number()?),
            "-w" => timeout = number()?,
            _ => rest.push(arg.as_str()),
        }
    }
    match (listen, rest.as_slice()) {
        (true, last) => {
            let port = port.or_else(|| last.last()?.parse().ok()).ok_or_else(|| Failure::usage(USAGE))?;
            serve(port, keep)
        }
        (false, [host, port]) => {
            let port: u16 = port.parse().map_err(|_| Failure::usage(USAGE))?;
            let stream = connect(host, port, Duration::from_secs(timeout.into()))?;
            match scan {
                true => println!("{host}:{port} open"),
                false => join(stream).map_err(about(format!("{host}:{port}")))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::usage(USAGE)),
    }
}

pub(super) fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Failure> {
    let address = super::wget::resolve(host)?;
    let mut last = None;
    for address in address.into_iter().flat_map(|ip| (ip, port).to_socket_addrs()).flatten() {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(Failure::new(format!("{host}:{port}: {error}")))
}

fn serve(port: u16, keep: bool) -> Result<ExitCode, Failure> {
    signals::end_on_termination().map_err(about("signals"))?;
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.map_err(about(format!("port {port}")))?;
    loop {
        let (stream, peer) = listener.accept().map_err(about(format!("port {port}")))?;
        join(stream).map_err(about(peer))?;
        if !keep {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Copies both ways until the peer is done; the end of standard input closes our half only.
fn join(stream: TcpStream) -> io::Result<()> {
    let mut sending = stream.try_clone()?;
    thread::Builder::new().spawn(move || {
        let _ = copy_unbuffered(&mut io::stdin().lock(), &mut [&mut sending]);
        let _ = sending.shutdown(Shutdown::Write);
    })?;
    let mut receiving = stream;
    copy_unbuffered(&mut receiving, &mut [&mut io::stdout().lock()])
}

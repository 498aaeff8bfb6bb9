//! One request and its reply on a connection of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Error;
use crate::protocol::{Answer, MAX_REPLY, MAX_REQUEST, Reply, Request, socket_path};

/// Sends `request`, returns the answer; a refusal is [`Error::Failed`].
pub(super) async fn call(
    dir: &Path,
    call: &'static str,
    request: &Request,
    limit: Duration,
) -> Result<Answer, Error> {
    Ok(open(dir, call, request, limit).await?.0)
}

/// As [`call`], and the connection stays open for what follows the reply.
pub(super) async fn open(
    dir: &Path,
    call: &'static str,
    request: &Request,
    limit: Duration,
) -> Result<(Answer, UnixStream), Error> {
    let talk = talk(dir, call, request);
    if limit == Duration::MAX {
        return talk.await;
    }
    tokio::time::timeout(limit, talk).await.unwrap_or(Err(Error::Timeout { call, seconds: limit.as_secs() }))
}

async fn talk(dir: &Path, call: &'static str, request: &Request) -> Result<(Answer, UnixStream), Error> {
    let broken = |source| Error::Connection { call, source };
    let socket = socket_path(dir);
    let mut connection = connect(dir).await.map_err(|source| Error::Connect { socket, source })?;
    let body =
        serde_json::to_vec(request).map_err(|error| Error::Protocol { call, message: error.to_string() })?;
    if body.len() > MAX_REQUEST {
        return Err(Error::Protocol {
            call,
            message: format!("the request has {} bytes, {MAX_REQUEST} are allowed", body.len()),
        });
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    connection.write_all(&length).await.map_err(broken)?;
    connection.write_all(&body).await.map_err(broken)?;
    let reply = read_message(&mut connection).await.map_err(broken)?;
    let reply = reply.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))?;
    match serde_json::from_slice(&reply) {
        Ok(Reply::Ok(answer)) => Ok((answer, connection)),
        Ok(Reply::Err(failure)) => Err(Error::Failed(failure)),
        Err(error) => Err(Error::Protocol { call, message: error.to_string() }),
    }
}

/// Connects to the socket, however deep its directory is (a socket's address has 108 bytes).
async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let socket = socket_path(dir);
    if socket.as_os_str().len() < 100 {
        return UnixStream::connect(socket).await;
    }
    let handle = std::fs::File::open(dir)?;
    let short = format!("/proc/self/fd/{}", handle.as_raw_fd());
    UnixStream::connect(socket_path(Path::new(&short))).await
}

/// Reads one length-prefixed message; none at the end of the stream.
pub(super) async fn read_message(connection: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match connection.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_REPLY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes, {MAX_REPLY} are allowed"),
        ));
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    Ok(Some(body))
}

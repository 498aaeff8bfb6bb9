//! Port-forward over SPDY (also inside a WebSocket): each TCP connection of the client is a pair of streams,
//! one for data and one for an error text, tied together by a request id.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::spdy::{Role, Session, Stream};
use super::{Io, StreamingRuntime};

/// How long the second stream of a pair may take, as upstream.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Half-open pairs of one connection.
const MAX_HALVES: usize = 100;

#[derive(Debug)]
struct Half {
    error: Option<Stream>,
    data: Option<Stream>,
    since: Instant,
}

/// Serves one upgraded connection until the client closes it.
pub(super) async fn serve(
    io: Box<dyn Io>,
    runtime: Arc<dyn StreamingRuntime>,
    sandbox: String,
) -> io::Result<()> {
    let mut session = Session::start(io, Role::Server)?;
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let expiry = halves.values().map(|half| half.since).min().map(|oldest| oldest + PAIR_TIMEOUT);
        tokio::select! {
            stream = session.accept() => {
                let Some(stream) = stream else { break };
                if let Some((port, error, data)) = pair_up(&mut halves, stream) {
                    forwards.spawn(forward(Arc::clone(&runtime), sandbox.clone(), port, error, data));
                }
            }
            () = until(expiry) => expire(&mut halves).await,
            Some(_) = forwards.join_next() => {}
        }
    }
    Ok(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Puts a stream to its other half. Refused streams are dropped, which resets them.
fn pair_up(halves: &mut HashMap<String, Half>, stream: Stream) -> Option<(u16, Stream, Stream)> {
    let id = request_id(&stream);
    if !halves.contains_key(&id) && halves.len() >= MAX_HALVES {
        return None;
    }
    let half =
        halves.entry(id.clone()).or_insert_with(|| Half { error: None, data: None, since: Instant::now() });
    match stream.header("streamtype") {
        Some("error") => half.error = Some(stream),
        Some("data") => half.data = Some(stream),
        other => tracing::debug!(?other, "port-forward stream of an unknown type"),
    }
    if half.error.is_none() || half.data.is_none() {
        return None;
    }
    let half = halves.remove(&id)?;
    let (error, data) = (half.error?, half.data?);
    let port = data.header("port").and_then(|port| port.parse().ok()).unwrap_or(0);
    Some((port, error, data))
}

/// Clients before request ids existed open the error stream and then, two numbers later, the data stream.
fn request_id(stream: &Stream) -> String {
    match stream.header("requestid") {
        Some(id) => id.to_owned(),
        None if stream.header("streamtype") == Some("data") => format!("#{}", stream.id().saturating_sub(2)),
        None => format!("#{}", stream.id()),
    }
}

async fn expire(halves: &mut HashMap<String, Half>) {
    let expired: Vec<String> = halves
        .iter()
        .filter(|(_, half)| half.since.elapsed() >= PAIR_TIMEOUT)
        .map(|(id, _)| id.clone())
        .collect();
    for id in expired {
        if let Some(mut error) = halves.remove(&id).and_then(|half| half.error) {
            let _ = error.write_all(format!("request {id}: timed out waiting for streams").as_bytes()).await;
            let _ = error.shutdown().await;
        }
    }
}

async fn forward(
    runtime: Arc<dyn StreamingRuntime>,
    sandbox: String,
    port: u16,
    mut error: Stream,
    data: Stream,
) {
    let outcome = if port == 0 {
        Err(super::StreamError::new("the port header is missing or not a port"))
    } else {
        runtime.port_forward(&sandbox, port, Box::new(data)).await
    };
    if let Err(failure) = outcome {
        let text = format!("error forwarding port {port} to pod {sandbox}, uid : {failure}");
        let _ = error.write_all(text.as_bytes()).await;
    }
    let _ = error.shutdown().await;
}

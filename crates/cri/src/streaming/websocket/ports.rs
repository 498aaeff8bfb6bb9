//! Port-forward over WebSocket without a tunnel, as older client libraries do it: two channels per port of the
//! request, data and error, each beginning with the port as two little-endian bytes.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::{Encoding, Io, SEND_QUEUE, STDIN_BUFFER, StreamingRuntime, finish, normal_close};
use crate::v1::PortForwardRequest;

/// Two channels each, and channel numbers are one byte (one digit with base64).
const MAX_PORTS: usize = 100;

/// Serves one upgraded connection until every port is done or the client closes.
pub(in crate::streaming) async fn serve(
    io: Box<dyn Io>,
    runtime: Arc<dyn StreamingRuntime>,
    request: PortForwardRequest,
    protocol: Option<&'static str>,
) -> io::Result<()> {
    let encoding = Encoding::of(protocol);
    let ports: Vec<u16> = request.port.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    let limit = if encoding == Encoding::Base64 { 5 } else { MAX_PORTS };
    if ports.is_empty() || ports.len() > limit || ports.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no usable ports in the request"));
    }
    let (sink, mut source) = super::accept(io).await.split();
    let (sender, messages) = mpsc::channel(SEND_QUEUE);
    let writer = tokio::spawn(super::write_messages(sink, messages));
    let mut inputs = Vec::new();
    let mut forwards = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = (index * 2) as u8;
        for channel in [channel, channel + 1] {
            let _ = sender.send(encoding.message(channel, &port.to_le_bytes())).await;
        }
        let (far, near) = tokio::io::duplex(STDIN_BUFFER);
        let (mut output, input) = tokio::io::split(far);
        inputs.push(Some(input));
        let (runtime, sandbox, sender) =
            (Arc::clone(&runtime), request.pod_sandbox_id.clone(), sender.clone());
        forwards.spawn(async move {
            let errors = sender.clone();
            let copying = async move {
                let mut chunk = vec![0u8; 32 * 1024];
                while let Ok(count) = output.read(&mut chunk).await {
                    if count == 0 || sender.send(encoding.message(channel, &chunk[..count])).await.is_err() {
                        break;
                    }
                }
            };
            let (outcome, ()) = tokio::join!(runtime.port_forward(&sandbox, port, Box::new(near)), copying);
            if let Err(error) = outcome {
                let text = format!("error forwarding port {port} to pod {sandbox}, uid : {error}");
                let _ = errors.send(encoding.message(channel + 1, text.as_bytes())).await;
            }
        });
    }
    let pongs = sender.clone();
    let reader = tokio::spawn(async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Ping(payload) => {
                    let _ = pongs.send(Message::Pong(payload)).await;
                    continue;
                }
                Message::Close(_) => break,
                Message::Pong(_) | Message::Frame(_) => continue,
                Message::Text(_) | Message::Binary(_) => {}
            }
            let Some((channel, payload)) = encoding.parse(message) else { continue };
            if let Some(slot) = inputs.get_mut(usize::from(channel / 2))
                && channel % 2 == 0
                && let Some(input) = slot
                && input.write_all(&payload).await.is_err()
            {
                *slot = None;
            }
        }
        for mut input in inputs.into_iter().flatten() {
            let _ = input.shutdown().await;
        }
    });
    while forwards.join_next().await.is_some() {}
    let _ = sender.send(normal_close()).await;
    drop(sender);
    finish(writer, reader).await
}

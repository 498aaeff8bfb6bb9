//! A watch over a WebSocket: a message an event. Browsers have no other way to read an answer that never ends.

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Request};
use sampan_api::Status;

use crate::respond::{Body, Response};

/// Whether a client wants its watch over a WebSocket.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Sends the body of `watch`, which is a line an event, over the socket that `request` asks for.
///
/// # Errors
/// 400 for a handshake that is none.
pub(crate) async fn answer(request: Request<Body>, watch: Response) -> Result<Response, Status> {
    let (mut parts, _) = request.into_parts();
    let protocols = offered(&parts.headers);
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|refused| Status::bad_request(refused.body_text()))?;
    // Browsers insist on one of the protocols that they offered; what it is does not matter to a watch.
    Ok(upgrade.protocols(protocols).on_upgrade(|socket| serve(socket, watch.into_body())))
}

/// The subprotocols that were offered.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .filter(|protocol| !protocol.is_empty())
        .collect()
}

async fn serve(mut socket: WebSocket, body: Body) {
    let mut events = body.into_data_stream();
    loop {
        tokio::select! {
            chunk = events.next() => {
                let Some(Ok(chunk)) = chunk else { break };
                if send(&mut socket, &chunk).await.is_err() {
                    return;
                }
            }
            // Nothing is expected from the client but its end; pings are answered by reading them.
            heard = socket.recv() => match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

/// The lines of a piece of the body, a message each. Pieces end where lines end.
async fn send(socket: &mut WebSocket, chunk: &Bytes) -> Result<(), axum::Error> {
    for line in chunk.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line).into_owned();
        socket.send(Message::Text(text.into())).await?;
    }
    Ok(())
}

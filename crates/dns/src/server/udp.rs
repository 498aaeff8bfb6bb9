//! Questions over UDP: one packet, one answer.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::{Answering, Reply};

/// A question is small; of a longer packet the rest is cut off, and what is left is no message.
const LARGEST: usize = 4096;

/// Answers for ever.
pub(super) async fn run(socket: Arc<UdpSocket>, answering: &Answering) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An answer that could not be delivered comes back as an error of the socket.
                tracing::trace!(%error, "DNS over UDP");
                continue;
            }
        };
        if !answering.is_client(peer) {
            continue;
        }
        match answering.answer(&buffer[..length], None) {
            Reply::None => {}
            Reply::Now(answer) => {
                // Without waiting: a full buffer means that the answer is lost, as UDP allows.
                if socket.try_send_to(&answer, peer).is_err() {
                    let _lost = socket.send_to(&answer, peer).await;
                }
            }
            Reply::Later(answer) => {
                let (answering, socket) = (answering.clone(), socket.clone());
                tokio::spawn(async move {
                    let answer = answering.complete(*answer).await;
                    let _lost = socket.send_to(&answer, peer).await;
                });
            }
        }
    }
}

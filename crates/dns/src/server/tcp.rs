//! Questions over TCP: each with its length before it, one after the other.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Answering, Reply};

/// How many connections there may be, how long a client may be silent, how much it may ask.
const MOST_CONNECTIONS: usize = 128;
const IDLE: Duration = Duration::from_secs(10);
const MOST_QUESTIONS: usize = 1000;

/// Accepts for ever.
pub(super) async fn run(listener: TcpListener, answering: &Answering) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "DNS over TCP");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !answering.is_client(peer) {
            continue;
        }
        let answering = answering.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &answering).await {
                tracing::trace!(%error, %peer, "DNS over TCP");
            }
            drop(place);
        });
    }
}

async fn serve(mut stream: TcpStream, answering: &Answering) -> std::io::Result<()> {
    for _ in 0..MOST_QUESTIONS {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut packet = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut packet)).await??;
        let answer = match answering.answer(&packet, Some(u16::MAX)) {
            Reply::None => return Ok(()),
            Reply::Now(answer) => answer,
            Reply::Later(answer) => answering.complete(*answer).await,
        };
        let length = u16::try_from(answer.len()).unwrap_or_default();
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

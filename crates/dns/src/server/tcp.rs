//! Questions over TCP: each with its length before it, one after the other.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{Answering, Reply};

/// How many connections there may be, and how many of them one client's; how long a client may be silent, how much it
/// may ask.
const MOST_CONNECTIONS: usize = 128;
const MOST_OF_ONE: usize = 16;
const IDLE: Duration = Duration::from_secs(10);
const MOST_QUESTIONS: usize = 1000;

/// How many connections each client has.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of a client.
struct Seat {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// A further connection; `None` when the client has its share.
    fn seat(&self, client: IpAddr) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= MOST_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Seat { clients: self.clone(), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// Accepts for ever.
pub(super) async fn run(listener: TcpListener, answering: &Answering) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let clients = Clients::default();
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
        let Some(seat) = clients.seat(peer.ip().to_canonical()) else { continue };
        let answering = answering.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, &answering).await {
                tracing::trace!(%error, %peer, "DNS over TCP");
            }
            drop((seat, place));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_client_has_only_its_share() {
        let clients = Clients::default();
        let [one, other] = ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let seats: Vec<_> = (0..MOST_OF_ONE).map(|_| clients.seat(one).unwrap()).collect();
        assert!(clients.seat(one).is_none());
        assert!(clients.seat(other).is_some());
        drop(seats);
        assert!(clients.seat(one).is_some());
        assert!(clients.0.lock().unwrap().is_empty());
    }
}

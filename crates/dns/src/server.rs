//! The sockets: UDP and TCP on one port.
//!
//! What the zone or the cache knows is answered where it is read; other questions wait on tasks of their own, so that
//! a slow server outside delays nobody.

mod tcp;
mod udp;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::{BinEncodable, BinEncoder},
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::forward::Upstreams;
use crate::{
    Error, Zone,
    answer::{self, Step},
    forward::Forwarder,
};

/// The smallest size of a UDP packet that every client takes.
const PLAIN_PAYLOAD: u16 = 512;
/// How many clients may wait for answers of others. Each costs memory, and it is they who choose how many there are.
const MOST_WAITING: usize = 4096;
/// A free port for both protocols is tried so often.
const ATTEMPTS: usize = 32;

/// How a server is made.
pub struct ServerConfig {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port; 0 takes one that is free for both protocols.
    pub port: u16,
    /// Who is asked for other names.
    pub upstreams: Upstreams,
    /// Addresses under which this server is known besides its own: it must not ask itself.
    pub own: Vec<IpAddr>,
    /// Whom the server is for. Others get no answer, not even that there is none.
    pub is_client: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// A server that listens.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    answering: Answering,
}

/// What both protocols need to answer.
#[derive(Clone)]
struct Answering {
    zone: Zone,
    forwarder: Arc<Forwarder>,
    is_client: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    waiting: Arc<Semaphore>,
}

/// An answer: at once, or later.
enum Reply {
    None,
    Now(Vec<u8>),
    Later(Box<Unfinished>),
}

/// An answer of which others know the rest.
struct Unfinished {
    message: Message,
    name: Name,
    kind: RecordType,
    limit: u16,
    _place: OwnedSemaphorePermit,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// When the address is not there or the port is taken.
    pub async fn bind(config: ServerConfig, zone: Zone) -> Result<Self, Error> {
        let mut attempt = 0;
        let (udp, tcp) = loop {
            attempt += 1;
            match listen(config.address, config.port).await {
                Ok(both) => break both,
                Err(_) if config.port == 0 && attempt < ATTEMPTS => {}
                Err(source) => {
                    let address = SocketAddr::new(config.address, config.port);
                    return Err(Error::Listen { address, source });
                }
            }
        };
        let own = [vec![config.address], config.own].concat();
        let forwarder = Forwarder::new(config.upstreams, own);
        let waiting = Arc::new(Semaphore::new(MOST_WAITING));
        let answering = Answering { zone, forwarder, is_client: config.is_client, waiting };
        Ok(Self { udp: Arc::new(udp), tcp, answering })
    }

    /// Where it listens, with both protocols.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let answering =
            async { tokio::join!(udp::run(self.udp, &self.answering), tcp::run(self.tcp, &self.answering)) };
        tokio::select! {
            _ = answering => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn listen(address: IpAddr, port: u16) -> std::io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((address, port)).await?;
    let tcp = TcpListener::bind(udp.local_addr()?).await?;
    // Bursts of a whole node's pods; the kernel takes what its limit allows.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&udp, 1 << 20);
    Ok((udp, tcp))
}

impl Answering {
    fn is_client(&self, peer: SocketAddr) -> bool {
        (self.is_client)(peer.ip().to_canonical())
    }

    /// Answers a packet of at most `limit` bytes for the answer; `None` lets EDNS decide.
    fn answer(&self, packet: &[u8], limit: Option<u16>) -> Reply {
        match answer::step(&self.zone, packet) {
            Step::Ignore => Reply::None,
            Step::Done(message) => Reply::Now(encode(*message, limit.unwrap_or_else(|| udp_limit(packet)))),
            Step::Ask(mut message, name, kind) => {
                let limit = limit.unwrap_or_else(|| udp_limit(packet));
                if !message.recursion_desired {
                    message.metadata.response_code = ResponseCode::Refused;
                    return Reply::Now(encode(*message, limit));
                }
                if self.forwarder.complete_from_cache(&mut message, &name, kind) {
                    return Reply::Now(encode(*message, limit));
                }
                match self.waiting.clone().try_acquire_owned() {
                    Ok(place) => Reply::Later(Box::new(Unfinished {
                        message: *message,
                        name,
                        kind,
                        limit,
                        _place: place,
                    })),
                    Err(_) => {
                        message.metadata.response_code = ResponseCode::ServFail;
                        Reply::Now(encode(*message, limit))
                    }
                }
            }
        }
    }

    /// The rest of an answer, from others.
    async fn complete(&self, answer: Unfinished) -> Vec<u8> {
        let Unfinished { mut message, name, kind, limit, _place } = answer;
        self.forwarder.complete(&mut message, name, kind).await;
        encode(message, limit)
    }
}

/// What the client takes over UDP: what its EDNS record says, within bounds.
fn udp_limit(packet: &[u8]) -> u16 {
    let edns = Message::from_vec(packet).ok().and_then(|query| query.edns);
    edns.map_or(PLAIN_PAYLOAD, |edns| edns.max_payload().clamp(PLAIN_PAYLOAD, answer::PAYLOAD))
}

/// The answer in bytes. When it does not fit, with as many records as do (the first ones: names that lead to others
/// stay), and marked so that the client asks over TCP; some clients never do, and take what they get.
fn encode(mut message: Message, limit: u16) -> Vec<u8> {
    let mut bytes = to_bytes(&message);
    if bytes.as_ref().is_none_or(|bytes| bytes.len() > limit.into()) && !message.additionals.is_empty() {
        // Those are a courtesy.
        message.additionals.clear();
        bytes = to_bytes(&message);
    }
    if bytes.as_ref().is_none_or(|bytes| bytes.len() > limit.into()) {
        message.authorities.clear();
        message.metadata.truncation = true;
        let all = std::mem::take(&mut message.answers);
        bytes = to_bytes(&message);
        let (mut fit, mut too_many) = (0, all.len() + 1);
        while too_many - fit > 1 {
            let count = fit.midpoint(too_many);
            message.answers = all[..count].to_vec();
            match to_bytes(&message).filter(|bytes| bytes.len() <= limit.into()) {
                Some(fitting) => (fit, bytes) = (count, Some(fitting)),
                None => too_many = count,
            }
        }
    }
    bytes.unwrap_or_default()
}

fn to_bytes(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PLAIN_PAYLOAD.into());
    message.emit(&mut BinEncoder::new(&mut bytes)).ok()?;
    (bytes.len() <= usize::from(u16::MAX)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hickory_proto::op::Query;

    use super::*;

    #[tokio::test]
    async fn only_so_many_wait_for_others() {
        let answering = Answering {
            zone: Zone::new("cluster.local", None, &[]),
            forwarder: Forwarder::new(Upstreams::Fixed(vec![]), vec![]),
            is_client: Arc::new(|_| true),
            waiting: Arc::new(Semaphore::new(2)),
        };
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii("slow.example.").unwrap(), RecordType::A));
        let packet = query.to_vec().unwrap();
        let waiting = [answering.answer(&packet, None), answering.answer(&packet, None)];
        assert!(waiting.iter().all(|reply| matches!(reply, Reply::Later(_))));
        let Reply::Now(refused) = answering.answer(&packet, None) else { panic!("one too many waits") };
        assert_eq!(Message::from_vec(&refused).unwrap().response_code, ResponseCode::ServFail);
        drop(waiting);
        assert!(matches!(answering.answer(&packet, None), Reply::Later(_)));
    }
}

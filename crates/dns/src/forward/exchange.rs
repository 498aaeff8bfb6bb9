//! One question to one server: over UDP from a fresh port, over TCP when the answer does not fit.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::answer::PAYLOAD;

/// Asks; the caller limits the time.
pub(super) async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut query = Message::query();
    // Id and port are both random: an answer that was not asked for has to guess them.
    query.metadata.id = rand::random();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    query.set_edns(edns);
    let packet = query.to_vec().map_err(io::Error::other)?;

    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&packet).await?;
    let mut buffer = vec![0; 4096];
    let reply = loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not belong to the question is not worth giving up for.
        if let Some(reply) = read(&buffer[..length], &query) {
            break reply;
        }
    };
    if reply.truncation { over_tcp(server, &packet, &query).await } else { Ok(reply) }
}

async fn over_tcp(server: SocketAddr, packet: &[u8], query: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    read(&buffer, query).ok_or_else(|| io::Error::other("the answer is to another question"))
}

/// The answer, if it is one to this query.
fn read(packet: &[u8], query: &Message) -> Option<Message> {
    let reply = Message::from_vec(packet).ok()?;
    let ours = reply.id == query.id && reply.message_type == MessageType::Response;
    let same = match (&reply.queries[..], &query.queries[..]) {
        ([theirs], [ours]) => {
            theirs.name().to_lowercase() == ours.name().to_lowercase()
                && theirs.query_type() == ours.query_type()
        }
        _ => false,
    };
    (ours && same).then_some(reply)
}

//! The server over real sockets, with another server behind it that plays the world.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use sampan_dns::{Data, Records, Server, ServerConfig, Upstreams, Zone};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_util::sync::CancellationToken;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn start(
    upstreams: Vec<SocketAddr>,
    is_client: fn(IpAddr) -> bool,
) -> (SocketAddr, Zone, CancellationToken) {
    let zone = Zone::new("cluster.local", None, &[]);
    let config = ServerConfig {
        address: LOCALHOST,
        port: 0,
        upstreams: Upstreams::Fixed(upstreams),
        own: vec![],
        is_client: Arc::new(is_client),
    };
    let server = Server::bind(config, zone.clone()).await.unwrap();
    let (address, shutdown) = (server.address().unwrap(), CancellationToken::new());
    tokio::spawn(server.run(shutdown.clone()));
    (address, zone, shutdown)
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

async fn udp(server: SocketAddr, query: &Message) -> Option<Message> {
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    socket.send_to(&query.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 65_535];
    let received = tokio::time::timeout(Duration::from_secs(6), socket.recv(&mut buffer)).await;
    Some(Message::from_vec(&buffer[..received.ok()?.unwrap()]).unwrap())
}

async fn tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let packet = query.to_vec().unwrap();
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(&packet).await.unwrap();
    let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

/// A server for everything: an address with a TTL of 2 s, none for names that begin with `no`, too much for those that
/// begin with `big`. Counts what it was asked.
async fn world() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = |query: &Message, over_tcp: bool| {
        let name = query.queries[0].name().clone();
        let mut answer = Message::response(query.id, query.op_code);
        answer.queries = query.queries.clone();
        let text = name.to_ascii();
        let record = |last| Record::from_rdata(name.clone(), 2, RData::A(A(Ipv4Addr::new(192, 0, 2, last))));
        if text.starts_with("no") {
            answer.metadata.response_code = ResponseCode::NXDomain;
        } else if text.starts_with("big") && !over_tcp {
            answer.metadata.truncation = true;
        } else {
            answer.answers.extend((0..if over_tcp { 100 } else { 1 }).map(record));
        }
        answer.to_vec().unwrap()
    };
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let reply = answer(&Message::from_vec(&buffer[..length]).unwrap(), false);
            // What was not asked for is not taken for the answer.
            socket.send_to(&[0; 40], peer).await.unwrap();
            socket.send_to(&reply, peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let reply = answer(&Message::from_vec(&packet).unwrap(), true);
            stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn other_names_are_asked_for_once_and_remembered_for_as_long_as_they_hold() {
    let (world, asked) = world().await;
    let (server, zone, _stop) = start(vec![world], |_| true).await;
    let first = udp(server, &query("example.com.", RecordType::A)).await.unwrap();
    assert_eq!(first.answers[0].data.to_string(), "192.0.2.0");
    assert!(first.recursion_available && !first.authoritative);
    let again = udp(server, &query("EXAMPLE.com.", RecordType::A)).await.unwrap();
    assert_eq!((again.answers.len(), asked.load(Ordering::SeqCst)), (1, 1), "from the cache");
    assert_eq!(tcp(server, &query("example.com.", RecordType::A)).await.answers.len(), 1);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    udp(server, &query("example.com.", RecordType::A)).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "its time was over");
    let missing = udp(server, &query("no.example.", RecordType::A)).await.unwrap();
    assert_eq!(missing.response_code, ResponseCode::NXDomain);
    // A name of ours that is another name for one of the world's.
    let alias = Data::Alias("db.example.com".into());
    zone.set("default/db", Records { forward: vec![("db.default.svc".into(), alias)], reverse: vec![] });
    let chased = udp(server, &query("db.default.svc.cluster.local.", RecordType::A)).await.unwrap();
    let said: Vec<_> = chased.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(said, ["db.example.com.", "192.0.2.0"]);
    // Without the wish for recursion nobody is asked.
    let mut plain = query("other.example.", RecordType::A);
    plain.metadata.recursion_desired = false;
    assert_eq!(udp(server, &plain).await.unwrap().response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn what_is_too_long_for_udp_comes_over_tcp() {
    let (world, _) = world().await;
    let (server, zone, _stop) = start(vec![world], |_| true).await;
    let big = udp(server, &query("big.example.", RecordType::A)).await.unwrap();
    assert!(big.truncation && !big.answers.is_empty());
    assert_eq!(tcp(server, &query("big.example.", RecordType::A)).await.answers.len(), 100);
    // 60 addresses of ours: too many for 512 bytes, not for 1232.
    let address = |last| ("many.default.svc".to_owned(), Data::Address(IpAddr::from([10, 0, 0, last])));
    zone.set("default/many", Records { forward: (0..60).map(address).collect(), reverse: vec![] });
    let mut many = query("many.default.svc.cluster.local.", RecordType::A);
    let some = udp(server, &many).await.unwrap();
    // A header of 12 bytes, the question, 16 bytes an address.
    assert!(some.truncation && (20..=31).contains(&some.answers.len()), "{}", some.answers.len());
    // What leads to them is among those that come.
    let alias = Data::Alias("many.default.svc.cluster.local".into());
    zone.set(
        "default/alias",
        Records { forward: vec![("alias.default.svc".into(), alias)], reverse: vec![] },
    );
    let led = udp(server, &query("alias.default.svc.cluster.local.", RecordType::A)).await.unwrap();
    let kinds: Vec<_> = led.answers.iter().map(hickory_proto::rr::Record::record_type).collect();
    assert!(led.truncation && kinds.len() > 20, "{kinds:?}");
    assert_eq!((kinds[0], kinds[1]), (RecordType::CNAME, RecordType::A));
    assert_eq!(tcp(server, &many).await.answers.len(), 60);
    many.set_edns(Edns::new());
    many.edns.as_mut().unwrap().set_max_payload(4096);
    let answer = udp(server, &many).await.unwrap();
    assert_eq!((answer.truncation, answer.answers.len()), (false, 60));
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);
}

#[tokio::test]
async fn servers_that_ask_each_other_stop() {
    // Two servers, each the other's upstream.
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let relay = socket.local_addr().unwrap();
    let (server, _, _stop) = start(vec![relay], |_| true).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            // Asks the server what it was asked by it, and never knows an answer.
            let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            socket.send_to(&buffer[..length], server).await.unwrap();
        }
    });
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    socket.send_to(&query("loop.example.", RecordType::A).to_vec().unwrap(), server).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(count.load(Ordering::SeqCst) <= 2, "{} packets for one question", count.load(Ordering::SeqCst));
}

#[tokio::test]
async fn strangers_get_silence_and_nobody_outside_is_asked_when_there_is_nobody() {
    let (server, zone, _stop) = start(vec![], |_| false).await;
    let address = Data::Address("10.0.0.1".parse().unwrap());
    zone.set("a/b", Records { forward: vec![("b.a.svc".into(), address)], reverse: vec![] });
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let packet = query("b.a.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    socket.send_to(&packet, server).await.unwrap();
    let mut buffer = [0; 512];
    assert!(tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await.is_err());
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(stream.read(&mut buffer).await.unwrap_or(0), 0, "closed");
    let (server, _, _stop) = start(vec![], |_| true).await;
    let answer = udp(server, &query("example.com.", RecordType::A)).await.unwrap();
    assert_eq!(answer.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn while_records_are_missing_no_name_is_said_not_to_exist() {
    let (server, zone, _stop) = start(vec![], |_| true).await;
    zone.set_complete(false);
    let ask = || query("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(udp(server, &ask()).await.unwrap().response_code, ResponseCode::ServFail);
    zone.set_complete(true);
    assert_eq!(udp(server, &ask()).await.unwrap().response_code, ResponseCode::NXDomain);
}

//! Both roles against each other over an in-memory connection.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

fn pair() -> (Session, Session) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    (Session::start(near, Role::Client).unwrap(), Session::start(far, Role::Server).unwrap())
}

fn named(name: &str) -> Headers {
    vec![("streamtype".to_owned(), name.to_owned())]
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_close_by_halves() {
    let (mut client, mut server) = pair();
    let mut near = client.open(named("data")).await.unwrap();
    let mut far = server.accept().await.unwrap();
    assert_eq!(far.header("StreamType"), Some("data"));
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn megabytes_pass_without_window_updates_being_needed_first() {
    let (mut client, mut server) = pair();
    let mut near = client.open(named("stdout")).await.unwrap();
    let mut far = server.accept().await.unwrap();
    let sent = tokio::spawn(async move {
        far.write_all(&vec![7u8; 3 << 20]).await.unwrap();
        far.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    near.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 3 << 20);
    sent.await.unwrap();
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_others_live_on() {
    let (mut client, mut server) = pair();
    let near = client.open(named("one")).await.unwrap();
    let mut far = server.accept().await.unwrap();
    drop(near);
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    let broken = loop {
        if let Err(error) = far.write_all(b"x").await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    let mut near = client.open(named("two")).await.unwrap();
    let mut far = server.accept().await.unwrap();
    near.write_all(b"still here").await.unwrap();
    near.shutdown().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still here");
}

#[tokio::test]
async fn closing_delivers_what_was_written() {
    let (mut client, mut server) = pair();
    let mut near = client.open(named("error")).await.unwrap();
    let mut far = server.accept().await.unwrap();
    far.write_all(b"last words").await.unwrap();
    far.shutdown().await.unwrap();
    let closing = tokio::spawn(server.close());
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    drop(near);
    drop(client);
    closing.await.unwrap();
}

/// A peer that counts windows stops us at 64 KiB until it says more.
#[tokio::test]
async fn a_peer_with_flow_control_is_obeyed() {
    let (mut raw, near): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
    let mut server = Session::start(near, Role::Server).unwrap();
    let mut compressor = headers::Compressor::new().unwrap();
    let mut out = BytesMut::new();
    frame::encode(Outgoing::SynStream { id: 1, headers: named("data") }, &mut compressor, &mut out).unwrap();
    frame::encode(Outgoing::WindowUpdate { id: 1, delta: 1 }, &mut compressor, &mut out).unwrap();
    raw.write_all(&out).await.unwrap();
    let mut far = server.accept().await.unwrap();
    while !far.window.windowed.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let writing = tokio::spawn(async move {
        far.write_all(&vec![1u8; 100_000]).await.unwrap();
        far
    });
    let mut got = 0;
    let mut data_bytes = async |wanted: usize| {
        while got < wanted {
            if let Some(Incoming::Data { piece, .. }) = frame::read(&mut raw).await.unwrap() {
                got += piece.len();
            }
        }
        got
    };
    assert_eq!(data_bytes(65_537).await, 65_537);
    assert!(!writing.is_finished());
    out.clear();
    frame::encode(Outgoing::WindowUpdate { id: 1, delta: 100_000 }, &mut compressor, &mut out).unwrap();
    raw.write_all(&out).await.unwrap();
    writing.await.unwrap();
}

#[tokio::test]
async fn rubbish_ends_the_connection() {
    let (mut raw, near) = tokio::io::duplex(1024);
    let mut server = Session::start(near, Role::Server).unwrap();
    raw.write_all(&[0x80, 0x03, 0x00, 0x01, 0x00, 0xff, 0xff, 0xff]).await.unwrap();
    assert!(server.accept().await.is_none());
}

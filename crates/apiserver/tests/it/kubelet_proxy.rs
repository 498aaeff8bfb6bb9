//! Logs and streams through the API server to a kubelet (here: a TLS server that plays one).

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use sampan_apiserver::Pki;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Api, pod};
use crate::https::{Door, tls};

type Chunks =
    StreamBody<futures::stream::BoxStream<'static, Result<Frame<bytes::Bytes>, std::convert::Infallible>>>;

fn whole(text: String) -> Chunks {
    StreamBody::new(Box::pin(futures::stream::iter([Ok(Frame::data(text.into()))])))
}

/// A kubelet that echoes what it is asked, streams its logs slowly, and upgrades to an echo.
async fn kubelet(pki: Pki) -> u16 {
    let (chain, key) = pki.kubelet_serving().to_rustls().unwrap();
    let verifier = sampan_apiserver::authentication::Verifier::new(pki.ca_pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, verifier) = (acceptor.clone(), verifier.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let user = verifier.verify(stream.get_ref().1.peer_certificates().unwrap()).unwrap().user;
                assert_eq!(user.username, "kube-apiserver-kubelet-client");
                let service = hyper::service::service_fn(answer);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Chunks>, std::convert::Infallible> {
    let asked = request.uri().to_string();
    assert!(!request.headers().contains_key("authorization"));
    if request.headers().contains_key("upgrade") {
        let protocol = request.headers()["upgrade"].clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream.write_all(format!("{asked}\n").as_bytes()).await.unwrap();
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count]).await.unwrap();
            }
        });
        let mut response = Response::new(whole(String::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", protocol);
        response.headers_mut().insert("x-stream-protocol-version", "v4.channel.k8s.io".parse().unwrap());
        return Ok(response);
    }
    if asked.contains("follow=true") {
        let lines = futures::stream::unfold(0, |count| async move {
            if count == 3 {
                // A log that is followed has no end.
                std::future::pending::<()>().await;
            }
            Some((Ok(Frame::data(format!("line {count}\n").into())), count + 1))
        });
        return Ok(Response::new(StreamBody::new(Box::pin(lines))));
    }
    if asked.contains("previous=true") {
        let mut response =
            Response::new(whole("previous terminated container \"c\" in pod \"p\" not found".into()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    Ok(Response::new(whole(format!("{asked}\n"))))
}

async fn cluster() -> Api {
    let api = Api::start().await;
    let port = kubelet(api.server.config.pki.clone()).await;
    let node = json!({"metadata": {"name": "node-a"}});
    api.post("/api/v1/nodes", node).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    api.merge("/api/v1/nodes/node-a/status", status).await.expect(200);
    api.pod("p", Some("node-a")).await;
    api
}

const POD: &str = "/api/v1/namespaces/default/pods/p";

#[tokio::test]
async fn logs_come_from_the_kubelet_with_their_options() {
    let api = cluster().await;
    let text = |answer: crate::harness::Answer| String::from_utf8(answer.bytes).unwrap();
    let log = api.get(&format!("{POD}/log?tailLines=3&timestamps=true")).await;
    assert_eq!(log.headers["content-type"], "text/plain");
    assert_eq!(text(log), "/containerLogs/default/p/c?timestamps=true&tailLines=3\n");
    let previous = api.get(&format!("{POD}/log?previous=true")).await;
    assert_eq!(previous.code, 400);
    assert_eq!(previous.message(), "previous terminated container \"c\" in pod \"p\" not found");
    assert_eq!(
        api.get(&format!("{POD}/log?container=x")).await.message(),
        "container x is not valid for pod p"
    );
    assert_eq!(api.get("/api/v1/namespaces/default/pods/none/log").await.code, 404);
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    api.post("/api/v1/namespaces/default/pods", two).await.expect(201);
    let unnamed = api.get("/api/v1/namespaces/default/pods/two/log").await;
    assert_eq!(unnamed.message(), "a container name must be specified for pod two, choose one of: [a b]");
    assert_eq!(api.get("/api/v1/namespaces/default/pods/two/log?container=a").await.code, 204);
    assert_eq!(text(api.get("/api/v1/nodes/node-a/proxy/metrics?x=1").await), "/metrics?x=1\n");
    assert_eq!(api.get("/api/v1/nodes/node-a/proxy").await.code, 301);
}

#[tokio::test]
async fn a_followed_log_arrives_line_by_line() {
    let api = cluster().await;
    let door = Door::open(&api).await;
    let pki = api.server.config.pki.clone();
    let stream = tls(door.address, pki.ca_pem(), Some(pki.admin())).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("{POD}/log?follow=true")).header("host", "localhost");
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.ends_with("line 2\n") {
        let frame =
            tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert_eq!(text, "line 0\nline 1\nline 2\n");
    door.close().await;
}

#[tokio::test]
async fn exec_is_passed_through_both_ways() {
    let api = cluster().await;
    let door = Door::open(&api).await;
    let pki = api.server.config.pki.clone();
    for protocol in ["SPDY/3.1", "websocket"] {
        let mut stream = tls(door.address, pki.ca_pem(), Some(pki.admin())).await;
        let head = format!(
            "POST {POD}/exec?command=sh&stdin=true&stdout=true&stderr=true HTTP/1.1\r\nhost: localhost\r\n\
             connection: Upgrade\r\nupgrade: {protocol}\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut read = String::new();
        let mut buffer = [0; 4096];
        while !read.contains("/exec/default/p/c?command=sh&error=1&input=1&output=1\n") {
            let count = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(count > 0, "{read}");
            read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert!(read.starts_with("HTTP/1.1 101"), "{read}");
        assert!(read.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{read}");
        stream.write_all(b"\x00hello").await.unwrap();
        let mut echo = [0; 6];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"\x00hello");
    }
    let plain = api.call(http::Method::POST, &format!("{POD}/exec?command=sh"), &[], vec![]).await;
    assert_eq!((plain.code, plain.message().as_str()), (400, "Upgrade request required"));
    door.close().await;
}

#[tokio::test]
async fn a_kubelet_that_is_gone_is_said_plainly() {
    let api = Api::start().await;
    api.post("/api/v1/nodes", json!({"metadata": {"name": "node-a"}})).await.expect(201);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    api.merge("/api/v1/nodes/node-a/status", status).await.expect(200);
    api.pod("p", Some("node-a")).await;
    let log = api.get(&format!("{POD}/log")).await;
    assert_eq!(log.code, 500);
    assert_eq!(
        log.message(),
        format!(
            "Get \"https://127.0.0.1:{port}/containerLogs/default/p/c\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
}

//! Probes over real sockets: HTTP, HTTPS, TCP, gRPC. On the real clock, as the hooks are.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::hooks_network::{OK, Server};
use crate::world::World;

/// A pod whose container has this probe, and this port under the name `web`.
async fn probed(kind: &str, mut probe: Value, port: u16) -> World {
    let world = World::new().await;
    world.runtime.pod_ip("127.0.0.1");
    probe["periodSeconds"] = json!(1);
    probe["failureThreshold"] = json!(1);
    let mut container = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
    container[kind] = probe;
    world.create(
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [container]}),
    );
    world
}

fn ready(world: &World) -> bool {
    world.status()["containerStatuses"][0]["ready"] == true
}

/// The probe succeeds.
async fn succeeds(probe: Value, port: u16) -> World {
    let world = probed("readinessProbe", probe, port).await;
    world.until("ready", ready).await;
    world
}

/// The probe fails, and the event says this.
async fn fails(probe: Value, port: u16, why: &str) {
    let world = probed("readinessProbe", probe, port).await;
    let event = format!("Warning Unhealthy spec.containers{{c}}: Readiness probe failed: {why}");
    world.until(&event, |world| world.events().contains(&event)).await;
    assert!(!ready(&world));
}

/// A port that nobody listens at.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn pod_39_40_43_a_request_to_a_named_port_with_the_probes_headers() {
    let server = Server::start(Some(OK.to_owned())).await;
    let probe = json!({"httpGet": {"port": "web", "path": "/health?full", "httpHeaders": [
        {"name": "X-Mine", "value": "yes"}]}});
    let world = succeeds(probe, server.port).await;
    let request = server.requests()[0].to_lowercase();
    assert!(request.starts_with("get /health?full http/1.1\r\n"), "{request}");
    assert!(request.contains("user-agent: kube-probe/1.36\r\n"), "{request}");
    assert!(request.contains("accept: */*\r\n") && request.contains("x-mine: yes\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{request}");
    assert!(!world.has_event("Unhealthy") && !world.has_event("ProbeWarning"));
}

#[tokio::test]
async fn pod_39_43_a_server_error_is_not_ready_and_not_alive() {
    for status in ["400 Bad Request", "500 Internal Server Error"] {
        let server = Server::start(Some(OK.replace("200 OK", status))).await;
        let why = format!("HTTP probe failed with statuscode: {}", &status[..3]);
        fails(json!({"httpGet": {"port": "web", "path": "/"}}), server.port, &why).await;
    }
    let server = Server::start(Some(OK.replace("200 OK", "500 Internal Server Error"))).await;
    let world = probed("livenessProbe", json!({"httpGet": {"port": "web"}}), server.port).await;
    let restarted = |world: &World| world.status()["containerStatuses"][0]["restartCount"] == 1;
    world.until("restarted", restarted).await;
    let unhealthy =
        "Warning Unhealthy spec.containers{c}: Liveness probe failed: HTTP probe failed with statuscode: 500";
    world.until("the event", |world| world.has_event(unhealthy)).await;
    let killing = "Killing spec.containers{c}: Container c failed liveness probe, will be restarted";
    world.until("killing", |world| world.has_event(killing)).await;
}

#[tokio::test]
async fn pod_40_what_is_no_error_is_a_success() {
    for status in ["299 Fine", "399 Odd"] {
        let server = Server::start(Some(OK.replace("200 OK", status))).await;
        succeeds(json!({"httpGet": {"port": server.port}}), 1).await;
    }
}

#[tokio::test]
async fn pod_40_redirects_are_followed_on_the_same_host_only() {
    let redirect = |to: &str| {
        let found = format!("302 Found\r\nLocation: {to}");
        Some(OK.replace("200 OK", &found))
    };
    let there = Server::start(Some(OK.replace("200 OK", "503 Service Unavailable"))).await;
    let here = Server::start(redirect(&format!("http://127.0.0.1:{}/there", there.port))).await;
    let probe = json!({"httpGet": {"port": here.port, "path": "/here"}});
    fails(probe, 1, "HTTP probe failed with statuscode: 503").await;
    assert!(there.requests()[0].starts_with("GET /there "), "{:?}", there.requests());
    let elsewhere = Server::start(redirect("http://example.invalid/")).await;
    let world = succeeds(json!({"httpGet": {"port": elsewhere.port}}), 1).await;
    let warning = "Warning ProbeWarning spec.containers{c}: Readiness probe warning: Probe terminated redirects, \
                   Response body: hello";
    world.until("the event", |world| world.has_event(warning)).await;
}

#[tokio::test]
async fn pod_40_https_is_asked_without_a_look_at_the_certificate() {
    let key = KeyPair::generate().unwrap();
    let names = vec!["elsewhere.invalid".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 8_192];
            let Ok(1..) = stream.read(&mut request).await else { continue };
            let _ = stream.write_all(OK.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    succeeds(json!({"httpGet": {"scheme": "HTTPS", "port": "web"}}), port).await;
}

#[tokio::test]
async fn pod_40_43_an_answer_that_takes_too_long_is_a_failure() {
    let server = Server::start(None).await;
    let url = format!("http://127.0.0.1:{}/slow", server.port);
    fails(
        json!({"httpGet": {"port": "web", "path": "/slow"}}),
        server.port,
        &format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
    )
    .await;
}

#[tokio::test]
async fn pod_39_43_a_tcp_connection_is_a_success_and_none_a_failure() {
    let server = Server::start(None).await;
    succeeds(json!({"tcpSocket": {"port": "web"}}), server.port).await;
    let closed = closed_port().await;
    let refused = format!("dial tcp 127.0.0.1:{closed}: connect: connection refused");
    fails(json!({"tcpSocket": {"port": closed}}), 1, &refused).await;
    let url = format!("http://127.0.0.1:{closed}/");
    fails(json!({"httpGet": {"port": closed}}), 1, &format!("Get \"{url}\": {refused}")).await;
}

#[tokio::test]
async fn pod_43_a_port_that_nobody_named_cannot_be_asked() {
    let world = probed("livenessProbe", json!({"tcpSocket": {"port": "nope"}}), 1).await;
    let event = "Warning Unhealthy spec.containers{c}: Liveness probe errored and resulted in unknown state: port nope \
                 not found";
    world.until("the event", |world| world.has_event(event)).await;
    assert_eq!(world.status()["containerStatuses"][0]["restartCount"], 0);
}

/// What a gRPC server says: a message with its length before it, `grpc-status` and `grpc-message`.
type Words = (&'static [u8], &'static str, &'static str);

/// A request to a gRPC server: path, user agent, message.
type Call = (String, String, Bytes);

/// A gRPC server that answers every call with the same words, or never, and what it was asked.
async fn grpc_server(words: Option<Words>) -> (u16, Arc<Mutex<Vec<Call>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = Arc::<Mutex<Vec<Call>>>::default();
    let seen = Arc::clone(&calls);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let agent = parts.headers["user-agent"].to_str().unwrap().to_owned();
            seen.lock().unwrap().push((parts.uri.path().to_owned(), agent, body));
            let Some((message, code, text)) = words else { return std::future::pending().await };
            let mut status = HeaderMap::new();
            status.insert("grpc-status", HeaderValue::from_static(code));
            status.insert("grpc-message", HeaderValue::from_static(text));
            // Without a message the status is in the headers; trailers follow nothing but a message.
            let (headers, trailers) =
                if message.is_empty() { (status, None) } else { (HeaderMap::new(), Some(Ok(status))) };
            let body = Full::new(Bytes::from_static(message)).with_trailers(std::future::ready(trailers));
            let mut response = Response::new(body);
            *response.headers_mut() = headers;
            Ok::<_, Infallible>(response)
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    (port, calls)
}

/// Answers of a health service.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];
const NO_MESSAGE: &[u8] = &[];

#[tokio::test]
async fn pod_39_a_grpc_service_that_serves_is_ready() {
    let (port, calls) = grpc_server(Some((SERVING, "0", ""))).await;
    succeeds(json!({"grpc": {"port": port, "service": "web"}}), port).await;
    let (path, agent, message) = calls.lock().unwrap()[0].clone();
    assert_eq!((path.as_str(), agent.as_str()), ("/grpc.health.v1.Health/Check", "kube-probe/1.36"));
    assert_eq!(&message[..], b"\0\0\0\0\x05\x0a\x03web");
    // Without a name it is the server as a whole.
    succeeds(json!({"grpc": {"port": port}}), port).await;
    assert!(calls.lock().unwrap().iter().any(|(_, _, message)| message[..] == [0; 5]));
}

#[tokio::test]
async fn pod_43_a_grpc_service_that_does_not_serve_says_why() {
    for (words, why) in [
        ((NOT_SERVING, "0", ""), "service unhealthy (responded with \"NOT_SERVING\")"),
        (
            (NO_MESSAGE, "12", "unknown service grpc.health.v1.Health"),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service \
             grpc.health.v1.Health",
        ),
        (
            (NO_MESSAGE, "5", "unknown%20service"),
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        ),
    ] {
        let (port, _) = grpc_server(Some(words)).await;
        fails(json!({"grpc": {"port": port}}), port, why).await;
    }
}

#[tokio::test]
async fn pod_43_a_grpc_service_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let (port, _) = grpc_server(None).await;
    fails(json!({"grpc": {"port": port}}), port, "timeout: health rpc did not complete within 1s").await;
    let closed = closed_port().await;
    fails(
        json!({"grpc": {"port": closed}}),
        closed,
        &format!(
            "error: failed to connect service at \"127.0.0.1:{closed}\": dial tcp 127.0.0.1:{closed}: connect: \
             connection refused"
        ),
    )
    .await;
}

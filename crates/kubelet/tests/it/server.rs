//! The HTTPS port over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sampan_kubelet::{Serving, ServingIdentity};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake_runtime::Script;
use crate::world::World;

struct Pki {
    serving: Serving,
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&server_key, &issuer)
        .unwrap();
    let serving = Serving {
        address: "127.0.0.1:0".parse().unwrap(),
        identity: tokio::sync::watch::channel(ServingIdentity {
            certificate_pem: server.pem().into_bytes(),
            private_key_pem: server_key.serialize_pem().into_bytes(),
        })
        .1,
        client_ca_pem: ca.pem().into_bytes(),
    };
    Pki { serving, ca: ca.der().clone(), issuer }
}

impl Pki {
    /// A connection with a client certificate of this name, or without one.
    async fn connect(
        &self,
        world: &World,
        user: Option<&str>,
    ) -> hyper::client::conn::http1::SendRequest<Empty<Bytes>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let config = match user {
            None => builder.with_no_client_auth(),
            Some(user) => {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(Vec::new()).unwrap();
                params.distinguished_name.push(DnType::CommonName, user);
                let certificate = params.signed_by(&key, &self.issuer).unwrap();
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        let stream = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn get(&self, world: &World, user: Option<&str>, path: &str) -> (StatusCode, String) {
        let mut sender = self.connect(world, user).await;
        let request = Request::get(path).header("host", "localhost").body(Empty::new()).unwrap();
        text(sender.send_request(request).await.unwrap()).await
    }
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

const API_SERVER: Option<&str> = Some("system:kube-apiserver");

async fn running() -> (World, Pki) {
    let pki = pki();
    let world = World::with_serving(Some(pki.serving.clone())).await;
    world.runtime.script("c", &[Script::Runs(0)]);
    world.create(json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}));
    world.until_phase("Running").await;
    (world, pki)
}

#[tokio::test]
async fn only_known_clients_are_served() {
    let (world, pki) = running().await;
    assert_eq!(pki.get(&world, None, "/pods").await, (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()));
    let (status, body) = pki.get(&world, Some("somebody"), "/pods").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.starts_with("Forbidden (user=somebody, verb=get, resource=nodes"), "{body}");
    assert_eq!(pki.get(&world, API_SERVER, "/healthz").await, (StatusCode::OK, "ok".to_owned()));
    let (status, body) = pki.get(&world, API_SERVER, "/pods").await;
    assert_eq!(status, StatusCode::OK);
    let pods: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    assert_eq!(pki.get(&world, API_SERVER, "/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pod_54_logs_are_read_and_followed_to_the_end() {
    let (world, pki) = running().await;
    let log = world.runtime.containers()[0].log_path.clone();
    let line = |n: u32| format!("2026-01-01T00:00:0{n}.000000000Z stdout F line {n}\n");
    std::fs::write(&log, (0..3).map(line).collect::<String>()).unwrap();
    let logs = |query: &str| format!("/containerLogs/default/p/c?{query}");
    assert_eq!(pki.get(&world, API_SERVER, &logs("")).await.1, "line 0\nline 1\nline 2\n");
    assert_eq!(pki.get(&world, API_SERVER, &logs("tailLines=1")).await.1, "line 2\n");
    assert_eq!(pki.get(&world, API_SERVER, &logs("limitBytes=9")).await.1, "line 0\nli");
    assert_eq!(
        pki.get(&world, API_SERVER, &logs("tailLines=1&timestamps=true")).await.1,
        "2026-01-01T00:00:02.000000000Z line 2\n"
    );
    let (status, body) = pki.get(&world, API_SERVER, &logs("previous=true")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body, "previous terminated container \"c\" in pod \"p\" not found");
    let path = logs("follow=true&tailLines=0");
    let followed = pki.get(&world, API_SERVER, &path);
    let writer = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Rotated in the middle: nothing is lost.
        let mut text = std::fs::read_to_string(&log).unwrap();
        text.push_str(&line(3));
        std::fs::write(&log, text).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::rename(&log, format!("{log}.20260101-000000")).unwrap();
        std::fs::write(&log, line(4)).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.delete(1);
    };
    let ((_, body), ()) = tokio::join!(followed, writer);
    assert_eq!(body, "line 3\nline 4\n");
}

#[tokio::test]
async fn exec_joins_client_and_runtime() {
    let (world, pki) = running().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.runtime.stream_at(&format!("http://{}/exec/token", listener.local_addr().unwrap()));
    let runtime = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("POST /exec/token HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")
            .await
            .unwrap();
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        ping
    };
    let client = async {
        let mut sender = pki.connect(&world, API_SERVER).await;
        let request = Request::post("/exec/default/p/c?command=sh&command=-c&output=1&error=1&tty=1")
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", "v4.channel.k8s.io")
            .body(Empty::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        stream.read_exact(&mut pong).await.unwrap();
        pong
    };
    let (ping, pong) = tokio::join!(runtime, client);
    assert_eq!((&ping, &pong), (b"ping", b"pong"));
    assert!(
        world.runtime.call_names().contains(&"exec stream [\"sh\", \"-c\"] tty=true stderr=false".to_owned())
    );
}

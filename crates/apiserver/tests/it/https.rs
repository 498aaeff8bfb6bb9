//! The front door: TLS, certificates, and the real kubectl.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sampan_apiserver::Pki;
use sampan_apiserver::pki::{CertifiedKeyPem, PkiConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::harness::Api;

pub struct Door {
    pub address: SocketAddr,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), sampan_apiserver::Error>>,
}

impl Door {
    pub async fn open(api: &Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(api.server.clone().serve(listener, stop.clone()));
        Self { address, stop, served }
    }

    pub async fn close(self) {
        self.stop.cancel();
        tokio::time::timeout(std::time::Duration::from_secs(10), self.served)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// A TLS connection to the server, with a client certificate or without.
pub async fn tls(
    address: SocketAddr,
    ca: &str,
    identity: Option<&CertifiedKeyPem>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(identity) => {
            let (chain, key) = identity.to_rustls().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// One request; the answer's code and text.
async fn get(
    address: SocketAddr,
    ca: &str,
    identity: Option<&CertifiedKeyPem>,
    path: &str,
    token: Option<&str>,
) -> (u16, String) {
    let stream = tls(address, ca, identity).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn certificates_and_tokens_say_who_one_is() {
    let api = Api::start().await;
    let door = Door::open(&api).await;
    let pki = api.server.config.pki.clone();
    let ca = pki.ca_pem();
    let pods = "/api/v1/namespaces/default/pods";

    let (code, text) = get(door.address, ca, None, pods, None).await;
    assert_eq!(code, 401, "{text}");
    assert!(text.contains("\"message\":\"Unauthorized\""), "{text}");
    assert_eq!(get(door.address, ca, None, "/healthz", None).await, (200, "ok".to_owned()));
    assert_eq!(get(door.address, ca, None, "/version", None).await.0, 200);
    assert_eq!(get(door.address, ca, None, "/api", None).await.0, 401);
    assert_eq!(get(door.address, ca, Some(pki.admin()), pods, None).await.0, 200);
    assert_eq!(get(door.address, ca, None, "/healthz", Some("wrong")).await.0, 401);

    // A stranger's certificate is a 401 and no TLS alert.
    let other = tempfile::tempdir().unwrap();
    let config = PkiConfig {
        node_name: "x".into(),
        hostnames: vec![],
        ips: vec![],
        service_ip: None,
        cluster_domain: "cluster.local".into(),
    };
    let stranger = Pki::ensure(other.path(), &config).unwrap();
    assert_eq!(get(door.address, ca, Some(stranger.admin()), pods, None).await.0, 401);

    // The kubelet of node-a may read its node's pods only.
    let kubelet = pki.kubelet_client();
    let (code, text) = get(door.address, ca, Some(kubelet), pods, None).await;
    assert_eq!(code, 403);
    assert!(text.contains("can only list/watch pods with spec.nodeName field selector"), "{text}");
    assert_eq!(
        get(door.address, ca, Some(kubelet), "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a", None)
            .await
            .0,
        200
    );

    let issued =
        api.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({})).await.expect(201);
    let token = issued["status"]["token"].as_str().unwrap();
    let (code, text) = get(door.address, ca, None, pods, Some(token)).await;
    assert_eq!(code, 403);
    assert!(
        text.contains("User \\\"system:serviceaccount:default:default\\\" cannot list resource"),
        "{text}"
    );
    assert_eq!(get(door.address, ca, None, "/apis", Some(token)).await.0, 200);
    door.close().await;
}

#[tokio::test]
async fn plain_http_is_answered_in_plain_words() {
    let api = Api::start().await;
    let door = Door::open(&api).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{text}");
    // Garbage and silence do not disturb others.
    let mut garbage = TcpStream::connect(door.address).await.unwrap();
    garbage.write_all(&[0x16, 3, 1, 0xff, 0xff, 0, 0]).await.unwrap();
    let _silent = TcpStream::connect(door.address).await.unwrap();
    let ca = api.server.config.pki.ca_pem().to_owned();
    assert_eq!(get(door.address, &ca, None, "/livez", None).await.0, 200);
    drop(garbage);
    door.close().await;
}

#[tokio::test]
async fn a_stop_ends_watches_and_returns() {
    let api = Api::start().await;
    let door = Door::open(&api).await;
    let pki = api.server.config.pki.clone();
    let stream = tls(door.address, pki.ca_pem(), Some(pki.admin())).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/api/v1/pods?watch=true").header("host", "localhost");
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let started = std::time::Instant::now();
    door.close().await;
    response.into_body().collect().await.unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(4));
}

async fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Output {
    tokio::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--cache-dir")
        .arg(kubeconfig.with_extension("cache"))
        .args(arguments)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn kubectl_finds_its_way() {
    if !Path::new("/usr/bin/kubectl").exists() {
        println!("kubectl is not installed: nothing tried");
        return;
    }
    let api = Api::start().await;
    let door = Door::open(&api).await;
    let home = tempfile::tempdir().unwrap();
    let admin = home.path().join("admin");
    let url = format!("https://{}", door.address);
    std::fs::write(&admin, api.server.config.pki.admin_kubeconfig(&url)).unwrap();
    let run = async |kubeconfig: &Path, arguments: &[&str]| {
        let output = kubectl(kubeconfig, arguments).await;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{error}");
        out.into_owned()
    };
    assert!(run(&admin, &["version"]).await.contains("Server Version: v1.36"));
    let resources = run(&admin, &["api-resources"]).await;
    let line = resources.lines().find(|line| line.starts_with("deployments")).unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        ["deployments", "deploy", "apps/v1", "true", "Deployment"]
    );
    assert!(run(&admin, &["auth", "whoami"]).await.contains("kubernetes-admin"));
    assert_eq!(run(&admin, &["auth", "can-i", "delete", "pods"]).await, "yes\n");
    let list = run(&admin, &["auth", "can-i", "--list"]).await;
    assert!(list.contains("*.*"), "{list}");
    let explained = run(&admin, &["explain", "pod.spec.containers.image"]).await;
    assert!(explained.contains("FIELD: image <string>"), "{explained}");
    assert_eq!(run(&admin, &["get", "--raw", "/readyz"]).await, "ok");
    assert!(run(&admin, &["cluster-info"]).await.contains("is running at"));
    run(&admin, &["create", "serviceaccount", "bot"]).await;
    run(&admin, &["create", "rolebinding", "b", "--clusterrole=view", "--serviceaccount=default:bot"]).await;
    run(&admin, &["create", "namespace", "extra"]).await;
    run(&admin, &["create", "configmap", "cm", "--from-literal=a=b"]).await;
    run(&admin, &["create", "secret", "generic", "s", "--from-literal=a=b"]).await;
    run(&admin, &["create", "deployment", "web", "--image=example.com/web:1", "--replicas=0", "--port=80"])
        .await;
    let web = run(
        &admin,
        &[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}",
        ],
    )
    .await;
    assert_eq!(web, "0 80");
    run(&admin, &["create", "role", "r", "--verb=get", "--resource=pods"]).await;
    assert_eq!(
        run(&admin, &["auth", "can-i", "list", "pods", "--as=system:serviceaccount:default:bot"]).await,
        "yes\n"
    );
    let refused =
        kubectl(&admin, &["auth", "can-i", "delete", "pods", "--as=system:serviceaccount:default:bot"]).await;
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "no\n");

    let token = run(&admin, &["create", "token", "bot"]).await;
    let bot = home.path().join("bot");
    let text = std::fs::read_to_string(&admin).unwrap();
    let users = text.find("users:").unwrap();
    let text = format!("{}users:\n- name: kubernetes-admin\n  user:\n    token: {token}\n", &text[..users]);
    std::fs::write(&bot, text).unwrap();
    assert!(run(&bot, &["auth", "whoami"]).await.contains("system:serviceaccount:default:bot"));
    run(&bot, &["get", "pods"]).await;
    let denied = kubectl(&bot, &["get", "secrets"]).await;
    assert_eq!(
        String::from_utf8_lossy(&denied.stderr),
        "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:default:bot\" cannot list \
         resource \"secrets\" in API group \"\" in the namespace \"default\"\n"
    );
    door.close().await;
}

#[tokio::test]
async fn who_asks_nothing_is_not_waited_for() {
    let api = Api::start().await;
    let door = Door::open(&api).await;
    for begun in [&b""[..], b"P", b"PRI * HTTP/2.0", b"GET /livez HTTP/1.1\r\n"] {
        let mut stream = tls(door.address, api.server.config.pki.ca_pem(), None).await;
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        // The clock runs ahead while nothing happens.
        tokio::time::pause();
        let _reset_or_end = stream.read_to_end(&mut rest).await;
        tokio::time::resume();
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    door.close().await;
}

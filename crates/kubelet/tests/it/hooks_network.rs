//! Hooks over real sockets: HTTP, HTTPS, TCP. On the real clock: the paused one would run out while a socket waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::World;

/// A server that answers every connection with the same bytes; none keeps the client waiting.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// The requests, as they came.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let mut bytes = vec![0; 8_192];
                    let count = stream.read(&mut bytes).await.unwrap_or(0);
                    seen.lock().unwrap().push(String::from_utf8_lossy(&bytes[..count]).into_owned());
                    match answer {
                        Some(answer) => {
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, requests }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

async fn running(post_start: Value) -> World {
    let world = started(post_start).await;
    world.until_phase("Running").await;
    world
}

async fn started(post_start: Value) -> World {
    let world = World::new().await;
    world.runtime.pod_ip("127.0.0.1");
    world.create(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "ports": [{"name": "web", "containerPort": 1}], "lifecycle": {"postStart": post_start}}]}));
    world
}

async fn failing(post_start: Value) -> String {
    let world = started(post_start).await;
    world.until("the event", |world| world.has_event("FailedPostStartHook")).await;
    world.events().into_iter().find(|event| event.contains("FailedPostStartHook")).unwrap()
}

#[tokio::test]
async fn hook_08_09_10_13_a_request_to_the_pods_address_with_its_headers() {
    let server = Server::start(Some(OK.replace("200 OK", "500 Internal Server Error"))).await;
    let world = running(json!({"httpGet": {"port": server.port.to_string(), "path": "hook?a=b#c", "httpHeaders": [
        {"name": "X-Mine", "value": "yes"}, {"name": "Accept", "value": ""}, {"name": "Host", "value": "me"}]}}))
    .await;
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "no retry: {requests:?}");
    let request = requests[0].to_lowercase();
    assert!(request.starts_with("get /hook?a=b http/1.1\r\n"), "{request}");
    assert!(request.contains("x-mine: yes\r\n") && request.contains("host: me\r\n"), "{request}");
    assert!(request.contains("user-agent: kube-lifecycle/1.36\r\n"), "{request}");
    assert!(!request.contains("accept:"), "{request}");
    let log = &world.hook_logs("c")[0].1;
    assert!(
        log.contains("stdout F HTTP 500 Internal Server Error\n") && log.contains("stdout F hello\n"),
        "{log}"
    );
}

#[tokio::test]
async fn hook_11_https_falls_back_to_http_without_credentials() {
    let server = Server::start(Some(OK.to_owned())).await;
    let world = running(json!({"httpGet": {"scheme": "HTTPS", "port": server.port, "host": "localhost",
        "httpHeaders": [{"name": "Authorization", "value": "secret"}]}}))
    .await;
    world.until("the event", |world| world.has_event("LifecycleHTTPFallback")).await;
    assert!(world.has_event(&format!(
        "Warning LifecycleHTTPFallback spec.containers{{c}}: request to HTTPS lifecycle hook localhost:{} got HTTP \
         response, retry with HTTP succeeded",
        server.port
    )));
    let plain = server.requests().into_iter().find(|request| request.starts_with("GET / ")).unwrap();
    assert!(!plain.to_lowercase().contains("authorization"), "{plain}");
}

#[tokio::test]
async fn hook_12_redirects_end_after_ten_and_lead_to_no_other_host() {
    let server = Server::start(Some(
        "HTTP/1.1 302 Found\r\nLocation: http://example.invalid/\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ))
    .await;
    running(json!({"httpGet": {"port": server.port}})).await;
    assert_eq!(server.requests().len(), 1);
    let looping = Server::start(Some(
        "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    ))
    .await;
    let event = failing(json!({"httpGet": {"port": looping.port, "path": "/"}})).await;
    assert!(event.contains("HTTP lifecycle hook (/) for Container \"c\" in Pod"), "{event}");
    assert!(event.contains("stopped after 10 redirects"), "{event}");
}

#[tokio::test]
async fn hook_08_10_what_cannot_be_asked_is_a_failure() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let event = failing(json!({"httpGet": {"port": closed, "path": "/x"}})).await;
    assert!(
        event.ends_with(&format!(
            "failed - error: Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
        )),
        "{event}"
    );
    let event = failing(json!({"httpGet": {"port": "nope", "path": "/x"}})).await;
    assert!(event.ends_with("failed - error: port nope not found"), "{event}");
    let event = failing(json!({"tcpSocket": {"port": closed}})).await;
    assert!(
        event.contains(&format!("TCP lifecycle hook ({closed}) for Container \"c\""))
            && event.ends_with("connect: connection refused"),
        "{event}"
    );
    let event = failing(json!({"tcpSocket": {"port": 80, "host": "no-such-host.invalid"}})).await;
    assert!(event.contains("dial tcp: lookup no-such-host.invalid: "), "{event}");
}

#[tokio::test]
async fn hook_15_a_tcp_connection_is_a_success() {
    let server = Server::start(None).await;
    running(json!({"tcpSocket": {"port": server.port}})).await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_the_end_of_the_grace_period() {
    let server = Server::start(None).await;
    let world = World::new().await;
    world.runtime.pod_ip("127.0.0.1");
    world.create(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "lifecycle": {"preStop": {"httpGet": {"port": server.port, "path": "/slow"}}}}]}));
    world.until_phase("Running").await;
    world.delete(1);
    world.until_gone().await;
    // A second, less what a busy machine took before the hook began.
    world.until("the event", |world| world.has_event("s, the grace period was over")).await;
    assert!(world.has_event("failed - error: cut after "));
    assert!(world.has_event("HTTP lifecycle hook (/slow) for Container \"c\""));
    assert_eq!(server.requests().len(), 1, "HOOK-34: not sent again");
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let body = "x".repeat(1 << 20);
    let server =
        Server::start(Some(format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{body}"))).await;
    let world = tokio::time::timeout(
        Duration::from_secs(20),
        running(json!({"httpGet": {"port": server.port, "path": "/"}})),
    )
    .await
    .unwrap();
    assert!(world.hook_logs("c")[0].1.len() < 16 << 10);
}

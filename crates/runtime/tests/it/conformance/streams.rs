//! Exec, attach and port-forward through the URLs of the streaming server.

use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use sampan_cri::streaming::spdy::{Role, Session};
use sampan_cri::v1;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Check, Target};

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

fn address(url: &str) -> String {
    url.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

async fn websocket(url: &str, protocol: &str) -> Socket {
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(address(url)).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// Upgrades to SPDY and gives the bare connection.
async fn spdy(url: &str, protocol: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_lowercase().contains(&format!("x-stream-protocol-version: {protocol}")), "{head}");
    stream
}

/// What came on each channel until the server closed.
async fn collect(socket: &mut Socket) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) if !bytes.is_empty() => {
                channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
            }
            Message::Close(_) => break,
            _ => {}
        }
    }
    channels
}

async fn exec_url(target: &Target, request: v1::ExecRequest) -> Result<String, tonic::Status> {
    Ok(target.client.runtime.clone().exec(request).await?.into_inner().url)
}

fn request(id: &str, command: &[&str]) -> v1::ExecRequest {
    v1::ExecRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

pub async fn pod_54_exec_over_websocket(target: &Target) -> Check {
    let (pod, id) = target.sleeper("ws", |_, _| {}).await?;
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let url = exec_url(target, request(&id, &["probe", "both", "out", "err"])).await?;
        let [_, stdout, stderr, error] = collect(&mut websocket(&url, protocol).await).await;
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        let status: Value = serde_json::from_slice(&error).unwrap();
        assert_eq!(status["status"], "Success");
    }
    let url = exec_url(target, request(&id, &["probe", "exit", "3"])).await?;
    let [.., error] = collect(&mut websocket(&url, "v4.channel.k8s.io").await).await;
    let status: Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "3");

    // The token is used up.
    let again = reqwest_like_get(&url).await;
    assert!(again.starts_with("HTTP/1.1 404"), "{again}");
    target.remove_pod(&pod).await
}

async fn reqwest_like_get(url: &str) -> String {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0u8; 256];
    let count = stream.read(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[..count]).into_owned()
}

pub async fn stdin_is_closed_by_halves(target: &Target) -> Check {
    let (pod, id) = target.sleeper("stdin", |_, _| {}).await?;
    let stdin = v1::ExecRequest { stdin: true, ..request(&id, &["probe", "echo-stdin"]) };
    let url = exec_url(target, stdin.clone()).await?;
    let mut socket = websocket(&url, "v5.channel.k8s.io").await;
    let big = vec![b'a'; 300_000];
    for chunk in big.chunks(30_000) {
        let mut message = vec![0u8];
        message.extend_from_slice(chunk);
        socket.send(Message::Binary(message.into())).await.unwrap();
    }
    // v5: stdin ends, the rest goes on.
    socket.send(Message::Binary(vec![255u8, 0].into())).await.unwrap();
    let [_, stdout, _, error] = collect(&mut socket).await;
    assert_eq!(stdout.len(), big.len() + b"end of input\n".len());
    assert!(String::from_utf8_lossy(&error).contains("Success"));

    let url = exec_url(target, stdin).await?;
    let mut session = Session::start(spdy(&url, "v4.channel.k8s.io").await, Role::Client).unwrap();
    let mut streams = Vec::new();
    for kind in ["error", "stdin", "stdout", "stderr"] {
        streams.push(session.open(vec![("streamtype".to_owned(), kind.to_owned())]).await.unwrap());
    }
    let mut texts = Vec::new();
    streams[1].write_all(b"over spdy").await.unwrap();
    streams[1].shutdown().await.unwrap();
    for index in [2, 0] {
        let mut text = String::new();
        streams[index].read_to_string(&mut text).await.unwrap();
        texts.push(text);
    }
    assert_eq!(texts[0], "over spdyend of input\n");
    assert!(texts[1].contains("Success"), "{}", texts[1]);
    session.close().await;
    target.remove_pod(&pod).await
}

pub async fn a_terminal_has_the_clients_size(target: &Target) -> Check {
    let (pod, id) = target.sleeper("tty", |_, _| {}).await?;
    let tty =
        v1::ExecRequest { tty: true, stdin: true, stderr: false, ..request(&id, &["probe", "winsize"]) };
    let url = exec_url(target, tty).await?;
    let mut socket = websocket(&url, "v4.channel.k8s.io").await;
    let mut size = vec![4u8];
    size.extend_from_slice(br#"{"Width":123,"Height":45}"#);
    socket.send(Message::Binary(size.into())).await.unwrap();
    let [_, stdout, ..] = collect(&mut socket).await;
    assert!(String::from_utf8_lossy(&stdout).contains("123x45"), "{:?}", String::from_utf8_lossy(&stdout));
    target.remove_pod(&pod).await
}

pub async fn attach_joins_the_main_process(target: &Target) -> Check {
    let config = target.pod("attach");
    let pod = target.run_pod(&config).await?;
    let mut container = target.container("main", &["probe", "echo-stdin"]);
    container.stdin = true;
    container.stdin_once = true;
    let id = target.run(&pod, container, &config).await?;
    let request = v1::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let url = target.client.runtime.clone().attach(request).await?.into_inner().url;
    let mut socket = websocket(&url, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\0hello\n".to_vec().into())).await.unwrap();
    socket.send(Message::Binary(vec![255u8, 0].into())).await.unwrap();
    let [_, stdout, ..] = collect(&mut socket).await;
    assert_eq!(String::from_utf8_lossy(&stdout), "hello\nend of input\n");
    assert_eq!(target.ended(&id).await?.exit_code, 0);
    // Attached or not, the log has it.
    assert_eq!(target.log(&id, 2).await?.len(), 2);
    target.remove_pod(&pod).await
}

pub async fn ports_are_forwarded(target: &Target) -> Check {
    let (pod, _) = target
        .sleeper("forward", |_, container| {
            container.command = vec!["httpd".into(), "-p".into(), "8080".into(), "-h".into(), "/etc".into()];
        })
        .await?;
    let url = |port: i32| {
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![port] };
        let mut runtime = target.client.runtime.clone();
        async move { runtime.port_forward(request).await.map(|answer| answer.into_inner().url) }
    };
    let open = |kind: &str, port: &str| {
        [("streamtype", kind), ("port", port), ("requestid", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    // Over SPDY, and the same inside a WebSocket.
    let direct = spdy(&url(8080).await?, "portforward.k8s.io").await;
    let socket = websocket(&url(8080).await?, "SPDY/3.1+portforward.k8s.io").await;
    let tunnel = sampan_cri::streaming::Tunnel::new(socket);
    let sessions =
        [Session::start(direct, Role::Client).unwrap(), Session::start(tunnel, Role::Client).unwrap()];
    for mut session in sessions {
        let mut answer = String::new();
        // The server in the container may still be starting.
        for _ in 0..100 {
            let mut error = session.open(open("error", "8080")).await.unwrap();
            error.shutdown().await.unwrap();
            let mut data = session.open(open("data", "8080")).await.unwrap();
            let _ = data.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await;
            answer.clear();
            let _ = data.read_to_string(&mut answer).await;
            if !answer.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(answer.starts_with("HTTP/1."), "{answer:?}");
        session.close().await;
    }
    // Nobody listens there: the error stream says so.
    let mut session = Session::start(spdy(&url(9).await?, "portforward.k8s.io").await, Role::Client).unwrap();
    let mut error = session.open(open("error", "9")).await.unwrap();
    let _data = session.open(open("data", "9")).await.unwrap();
    let mut text = String::new();
    error.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("9") && text.contains("refused"), "{text}");
    session.close().await;
    target.remove_pod(&pod).await
}

pub async fn plain_http_is_refused(target: &Target) -> Check {
    let (pod, id) = target.sleeper("http", |_, _| {}).await?;
    let url = exec_url(target, request(&id, &["true"])).await?;
    let stream = TcpStream::connect(address(&url)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let get = http::Request::get(&url).body(String::new()).unwrap();
    assert_eq!(sender.send_request(get).await.unwrap().status(), 400);
    let error = exec_url(target, v1::ExecRequest { tty: true, ..request(&id, &["true"]) }).await;
    assert!(error.expect_err("tty and stderr").message().contains("tty and stderr"));
    target.remove_pod(&pod).await
}

/// Whoever closes a terminal takes its process along; nobody waits for a client that is gone.
pub async fn a_lost_terminal_hangs_up(target: &Target) -> Check {
    let (pod, id) = target.sleeper("hang-up", |_, _| {}).await?;
    let tty = v1::ExecRequest { tty: true, stdin: true, stderr: false, ..request(&id, &["sleep", "77"]) };
    let url = exec_url(target, tty).await?;
    let socket = websocket(&url, "v5.channel.k8s.io").await;
    let runs = async || -> Result<bool, tonic::Status> {
        let names = target.output(&id, &["ls", "/proc"]).await?;
        for pid in names.split_whitespace().filter(|name| name.parse::<u32>().is_ok()) {
            let command = target.exec(&id, &["cat", &format!("/proc/{pid}/cmdline")]).await?;
            if command.stdout == b"sleep\x0077\0" {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut seen = false;
    for _ in 0..100 {
        seen = runs().await?;
        if seen {
            break;
        }
    }
    assert!(seen, "it never ran");
    // The connection is cut, not closed in good manners.
    drop(socket);
    for _ in 0..100 {
        if !runs().await? {
            return target.remove_pod(&pod).await;
        }
    }
    panic!("it still runs");
}

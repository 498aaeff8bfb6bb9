//! What the streaming server connects clients to: execs, attaches and ports of our containers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sampan_cri::streaming::{ExitStatus, Io, StreamError, StreamingRuntime, Streams};
use sampan_cri::v1;

use crate::container;
use crate::runtime::Runtime;

/// A port on the loopback interface answers or refuses at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The runtime as the streaming server sees it; weak, because the runtime owns that server.
pub(crate) struct Streaming(Weak<Runtime>);

impl Streaming {
    pub(crate) fn new(runtime: &Arc<Runtime>) -> Self {
        Self(Arc::downgrade(runtime))
    }

    fn runtime(&self) -> Result<Arc<Runtime>, StreamError> {
        self.0.upgrade().ok_or_else(|| StreamError::new("the runtime is shutting down"))
    }
}

#[async_trait]
impl StreamingRuntime for Streaming {
    async fn exec(&self, request: v1::ExecRequest, streams: Streams) -> Result<ExitStatus, StreamError> {
        let runtime = self.runtime()?;
        let found = runtime.container(&request.container_id).map_err(not_found)?;
        container::exec(&runtime, &found, &request, streams).await
    }

    async fn attach(&self, request: v1::AttachRequest, streams: Streams) -> Result<(), StreamError> {
        let runtime = self.runtime()?;
        let found = runtime.container(&request.container_id).map_err(not_found)?;
        container::attach(&runtime, &found, &request, streams).await
    }

    async fn port_forward(
        &self,
        sandbox: &str,
        port: u16,
        mut stream: Box<dyn Io>,
    ) -> Result<(), StreamError> {
        let netns = {
            let sandbox = self.runtime()?.sandbox(sandbox).map_err(not_found)?;
            if !sandbox.is_ready() {
                return Err(StreamError::new(format!("sandbox {} is not running", sandbox.id)));
            }
            let record = sandbox.record();
            record.namespaces.net.clone()
        };
        let mut connection = connect(netns, port).await.map_err(|error| {
            let why = error.to_string().to_lowercase();
            let why = why.split(" (os error").next().unwrap_or_default();
            StreamError::new(format!(
                "failed to connect to localhost:{port} inside the sandbox: connect: {why}"
            ))
        })?;
        // Either side may go at any time; what was delivered counts.
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut connection).await;
        Ok(())
    }
}

fn not_found(status: tonic::Status) -> StreamError {
    StreamError::new(status.message())
}

/// Connects to a port on the loopback of a network namespace. A socket belongs to the namespace in which it was
/// made, so a thread enters it, connects, and ends: threads of the pool must not carry a foreign namespace.
async fn connect(netns: Option<PathBuf>, port: u16) -> io::Result<tokio::net::TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("port-forward".to_owned()).spawn(move || {
        let _ = sender.send(connect_inside(netns, port));
    })?;
    let stream = receiver.await.map_err(|_| io::Error::other("the connecting thread died"))??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

fn connect_inside(netns: Option<PathBuf>, port: u16) -> io::Result<std::net::TcpStream> {
    if let Some(path) = netns {
        let namespace = std::fs::File::open(path)?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))?;
    }
    let to = |address: IpAddr| {
        std::net::TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT)
    };
    to(Ipv4Addr::LOCALHOST.into()).or_else(|error| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}

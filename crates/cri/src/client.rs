//! The kubelet's side: a connection to a container runtime's unix socket.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::archives::image_archives_client::ImageArchivesClient;
use crate::progress::pull_progress_client::PullProgressClient;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::{Error, MAX_MESSAGE_SIZE, MAX_REQUEST_SIZE};

/// The clients of one container runtime; they share a connection and clone cheaply. The connection comes back
/// by itself after the runtime restarted.
#[derive(Clone, Debug)]
pub struct Client {
    /// Sandboxes and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
    /// Our own service; other runtimes answer `Unimplemented`.
    pub progress: PullProgressClient<Channel>,
    /// Our own service; other runtimes answer `Unimplemented`.
    pub archives: ImageArchivesClient<Channel>,
}

/// Connects to `unix:///path` (or an absolute path).
///
/// # Errors
/// [`Error::Endpoint`] for any other form, [`Error::Connect`] when nothing answers.
pub async fn connect(endpoint: &str) -> Result<Client, Error> {
    let (connector, path) = prepare(endpoint)?;
    let channel = connector
        .connect_with_connector(dial(path))
        .await
        .map_err(|source| Error::Connect { endpoint: endpoint.to_owned(), source })?;
    Ok(Client::new(channel))
}

/// Like [`connect`], but dials at the first call: for a runtime that may come up later.
///
/// # Errors
/// [`Error::Endpoint`] for an endpoint that is no unix socket.
pub fn connect_lazy(endpoint: &str) -> Result<Client, Error> {
    let (connector, path) = prepare(endpoint)?;
    Ok(Client::new(connector.connect_with_connector_lazy(dial(path))))
}

impl Client {
    /// The clients over a given channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_REQUEST_SIZE),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_REQUEST_SIZE),
            progress: PullProgressClient::new(channel.clone()),
            archives: ImageArchivesClient::new(channel),
        }
    }
}

fn prepare(endpoint: &str) -> Result<(Endpoint, PathBuf), Error> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(Error::Endpoint { endpoint: endpoint.to_owned() });
    }
    // tonic wants a URI; the connector ignores it. gRPC servers in Go refuse an authority that is a path.
    Ok((Endpoint::from_static("http://localhost"), PathBuf::from(path)))
}

fn dial(
    path: PathBuf,
) -> impl tower::Service<Uri, Response = TokioIo<UnixStream>, Error = std::io::Error, Future: Send>
+ Clone
+ Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
}

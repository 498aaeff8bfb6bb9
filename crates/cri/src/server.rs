//! The runtime's side: both CRI services (and our progress service) on a unix socket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::progress::pull_progress_server::{PullProgress, PullProgressServer};
use crate::progress::{WatchRequest, WatchResponse};
use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::{Error, MAX_MESSAGE_SIZE};

/// Serves both CRI services on the unix socket at `path` (mode 0600) until `shutdown`, then lets the calls
/// under way finish and removes the socket. A stale socket file is replaced.
///
/// # Errors
/// [`Error::InUse`] when another process answers there, [`Error::Listen`], [`Error::Serve`].
pub async fn serve<R, I, P>(
    path: &Path,
    runtime: R,
    images: I,
    progress: P,
    shutdown: CancellationToken,
) -> Result<(), Error>
where
    R: RuntimeService,
    I: ImageService,
    P: PullProgress,
{
    let listener = listen(path).await?;
    let served = Server::builder()
        .add_service(
            RuntimeServiceServer::new(runtime)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
        )
        .add_service(
            ImageServiceServer::new(images)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
        )
        .add_service(PullProgressServer::new(progress))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled_owned())
        .await
        .map_err(|source| Error::Serve { path: path.to_owned(), source });
    let _ = std::fs::remove_file(path);
    served
}

/// Binds the socket: the file of a dead server is replaced, that of a living one is not.
async fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::InUse { path: path.to_owned() });
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Whoever may write here is root on the machine.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// A [`PullProgress`] for runtimes that cannot tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

#[tonic::async_trait]
impl PullProgress for NoProgress {
    type WatchStream = tokio_stream::Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("this runtime does not report the progress of pulls"))
    }
}

//! The runtime's side: both CRI services (and our progress service) on a unix socket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use crate::archives::image_archives_server::{ImageArchives, ImageArchivesServer};
use crate::archives::{
    Chunk, LoadResponse, PinRequest, PinResponse, PruneRequest, PruneResponse, RemoveRequest, RemoveResponse,
    SaveRequest,
};
use crate::progress::pull_progress_server::{PullProgress, PullProgressServer};
use crate::progress::{MirrorsRequest, MirrorsResponse, WatchRequest, WatchResponse};
use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::{Error, MAX_MESSAGE_SIZE};

/// What a runtime serves on its socket.
#[derive(Clone, Debug)]
pub struct Services<R, I, P, A> {
    /// Sandboxes and containers.
    pub runtime: R,
    /// Images.
    pub images: I,
    /// How far pulls have come.
    pub progress: P,
    /// Images from and to archives.
    pub archives: A,
}

/// Serves the CRI services and ours on the unix socket at `path` (mode 0600) until `shutdown`, then lets the calls
/// under way finish and removes the socket. A stale socket file is replaced.
///
/// # Errors
/// [`Error::InUse`] when another process answers there, [`Error::Listen`], [`Error::Serve`].
pub async fn serve_all<R, I, P, A>(
    path: &Path,
    services: Services<R, I, P, A>,
    shutdown: CancellationToken,
) -> Result<(), Error>
where
    R: RuntimeService,
    I: ImageService,
    P: PullProgress,
    A: ImageArchives,
{
    let runtime = RuntimeServiceServer::new(services.runtime)
        .max_decoding_message_size(MAX_MESSAGE_SIZE)
        .max_encoding_message_size(MAX_MESSAGE_SIZE);
    let router =
        Server::builder().add_service(runtime).add_service(PullProgressServer::new(services.progress));
    let router = add_images(router, services.images, services.archives);
    answer(path, router, shutdown).await
}

/// Serves the image services only: for a process that has images to work on and runs nothing.
///
/// # Errors
/// As [`serve_all`].
pub async fn serve_images<I, P, A>(
    path: &Path,
    images: I,
    progress: P,
    archives: A,
    shutdown: CancellationToken,
) -> Result<(), Error>
where
    I: ImageService,
    P: PullProgress,
    A: ImageArchives,
{
    let router = Server::builder().add_service(PullProgressServer::new(progress));
    answer(path, add_images(router, images, archives), shutdown).await
}

fn add_images<I, A>(router: Router, images: I, archives: A) -> Router
where
    I: ImageService,
    A: ImageArchives,
{
    let images = ImageServiceServer::new(images)
        .max_decoding_message_size(MAX_MESSAGE_SIZE)
        .max_encoding_message_size(MAX_MESSAGE_SIZE);
    let archives = ImageArchivesServer::new(archives).max_decoding_message_size(MAX_MESSAGE_SIZE);
    router.add_service(images).add_service(archives)
}

async fn answer(path: &Path, router: Router, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = listen(path).await?;
    let served = router
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled_owned())
        .await
        .map_err(|source| Error::Serve { path: path.to_owned(), source });
    let _ = std::fs::remove_file(path);
    served
}

/// [`serve_all`] for a runtime without archives.
///
/// # Errors
/// As [`serve_all`].
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
    serve_all(path, Services { runtime, images, progress, archives: NoArchives }, shutdown).await
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

    async fn mirrors(&self, _: Request<MirrorsRequest>) -> Result<Response<MirrorsResponse>, Status> {
        Err(Status::unimplemented("this runtime does not tell its mirrors"))
    }
}

/// An [`ImageArchives`] for runtimes that have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoArchives;

#[tonic::async_trait]
impl ImageArchives for NoArchives {
    type SaveStream = tokio_stream::Empty<Result<Chunk, Status>>;

    async fn load(&self, _: Request<Streaming<Chunk>>) -> Result<Response<LoadResponse>, Status> {
        Err(Status::unimplemented("this runtime does not load archives"))
    }

    async fn save(&self, _: Request<SaveRequest>) -> Result<Response<Self::SaveStream>, Status> {
        Err(Status::unimplemented("this runtime does not save archives"))
    }

    async fn pin(&self, _: Request<PinRequest>) -> Result<Response<PinResponse>, Status> {
        Err(Status::unimplemented("this runtime does not pin images"))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        Err(Status::unimplemented("this runtime does not remove names of images"))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        Err(Status::unimplemented("this runtime does not prune images"))
    }
}

//! CRI's `ImageService`, one file per method, and the two services of our own beside it: the progress of
//! pulls, and archives.

mod archives;
mod filesystem;
mod image_fs_info;
mod image_status;
mod list_images;
mod progress;
mod pull_image;
mod remove_image;

use std::path::Path;
use std::sync::Arc;

use sampan_cri::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::images::{ImageError, ImageRecord, ImageStore};

/// The image side of a CRI server; cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageService {
    store: Arc<ImageStore>,
    pulls: Arc<progress::Pulls>,
}

impl ImageService {
    /// Serves this store.
    pub fn new(store: Arc<ImageStore>) -> Self {
        Self { store, pulls: Arc::default() }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }
}

#[tonic::async_trait]
impl v1::image_service_server::ImageService for ImageService {
    type StreamImagesStream = list_images::Batches;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        list_images::list_images(self, request.into_inner()).map(Response::new)
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        list_images::stream_images(self, request.into_inner()).map(Response::new)
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        image_status::image_status(self, request.into_inner()).map(Response::new)
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let mirrors = sampan_cri::mirrors::logins(request.metadata());
        pull_image::pull_image(self, request.into_inner(), mirrors).await.map(Response::new)
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        remove_image::remove_image(self, request.into_inner()).await.map(Response::new)
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        image_fs_info::image_fs_info(self).await.map(Response::new)
    }
}

/// Serves the images alone on the unix socket at `path` until `shutdown`: for a process that runs no pods.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve(
    path: &Path,
    store: Arc<ImageStore>,
    shutdown: CancellationToken,
) -> Result<(), sampan_cri::Error> {
    let images = ImageService::new(store);
    sampan_cri::server::serve_images(path, images.clone(), images.clone(), images, shutdown).await
}

/// The name in a request; empty is an error of the caller.
fn name_of(spec: Option<v1::ImageSpec>) -> Result<v1::ImageSpec, Status> {
    spec.filter(|spec| !spec.image.is_empty())
        .ok_or_else(|| Status::invalid_argument("the request names no image"))
}

/// An image as CRI shows it. `specified` is the name as the user wrote it, when the request carried one.
fn to_cri(image: &ImageRecord, specified: Option<&v1::ImageSpec>) -> v1::Image {
    let spec = v1::ImageSpec {
        image: image.names().next().map_or_else(|| image.id.to_string(), str::to_owned),
        annotations: image.annotations.clone().into_iter().collect(),
        user_specified_image: specified.map(|s| s.user_specified_image.clone()).unwrap_or_default(),
        runtime_handler: specified.map(|s| s.runtime_handler.clone()).unwrap_or_default(),
        image_ref: String::new(),
    };
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.names().filter(|name| !name.contains('@')).map(str::to_owned).collect(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        // CRI wants one of the two: a name is for the kubelet to resolve later.
        uid: image.uid().filter(|_| image.username().is_none()).map(|value| v1::Int64Value { value }),
        username: image.username().unwrap_or_default().to_owned(),
        spec: Some(spec),
        pinned: image.pinned,
    }
}

/// Errors with the codes that kubelets know.
fn status(error: &ImageError) -> Status {
    let text = error.chain();
    match root(error) {
        ImageError::NotFound(_) | ImageError::NoBuiltin(_) => Status::not_found(text),
        ImageError::Reference(_) | ImageError::AmbiguousId(_) | ImageError::Builtin(_) => {
            Status::invalid_argument(text)
        }
        ImageError::DiskFull { .. } => Status::resource_exhausted(text),
        ImageError::Registry(e) if e.is_not_found() => Status::not_found(text),
        ImageError::Registry(e) if e.is_unauthorized() => Status::permission_denied(text),
        // The kubelet looks for the word at the beginning (IMG-31). What is unavailable, and what is rather a
        // mistake (a name that nobody knows, a certificate), `RegistryError::is_unavailable` says.
        ImageError::Registry(e) if e.is_unavailable() => {
            Status::unknown(format!("RegistryUnavailable: {text}"))
        }
        _ => Status::unknown(text),
    }
}

fn root(error: &ImageError) -> &ImageError {
    match error {
        ImageError::Shared(shared) => root(shared),
        other => other,
    }
}

#[cfg(test)]
mod tests;

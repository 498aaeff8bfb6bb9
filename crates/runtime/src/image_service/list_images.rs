//! `ListImages`, and `StreamImages` for nodes with very many.

use std::pin::Pin;

use futures::Stream;
use sampan_cri::v1;
use tonic::Status;

use super::{ImageService, status, to_cri};

/// Images per message of the stream.
const BATCH: usize = 100;

/// The stream of [`stream_images`].
pub(crate) type Batches = Pin<Box<dyn Stream<Item = Result<v1::StreamImagesResponse, Status>> + Send>>;

pub(super) fn list_images(
    service: &ImageService,
    request: v1::ListImagesRequest,
) -> Result<v1::ListImagesResponse, Status> {
    Ok(v1::ListImagesResponse { images: images(service, request.filter)? })
}

pub(super) fn stream_images(
    service: &ImageService,
    request: v1::StreamImagesRequest,
) -> Result<Batches, Status> {
    let images = images(service, request.filter)?;
    let batches: Vec<_> =
        images.chunks(BATCH).map(|batch| Ok(v1::StreamImagesResponse { images: batch.to_vec() })).collect();
    Ok(Box::pin(futures::stream::iter(batches)))
}

fn images(service: &ImageService, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, Status> {
    let spec = filter.and_then(|filter| filter.image).unwrap_or_default();
    let name = spec.image;
    if name.is_empty() {
        return Ok(service.store.list().iter().map(|image| to_cri(image, None)).collect());
    }
    let image = service.store.resolve_for(&name, &spec.runtime_handler).map_err(|e| status(&e))?;
    Ok(image.iter().map(|image| to_cri(image, None)).collect())
}

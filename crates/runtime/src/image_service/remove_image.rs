//! `RemoveImage`: the image with all its names; an absent one is a success.

use sampan_cri::v1;
use tonic::Status;

use super::{ImageService, name_of, status};

pub(super) async fn remove_image(
    service: &ImageService,
    request: v1::RemoveImageRequest,
) -> Result<v1::RemoveImageResponse, Status> {
    let spec = name_of(request.image)?;
    service.store.remove_image(&spec.image).await.map_err(|e| status(&e))?;
    Ok(v1::RemoveImageResponse {})
}

//! `ImageStatus`: what is known about an image; an absent one is an empty answer, not an error.

use std::collections::HashMap;

use sampan_cri::v1;
use serde_json::json;
use tonic::Status;

use super::{ImageService, name_of, status, to_cri};

pub(super) fn image_status(
    service: &ImageService,
    request: v1::ImageStatusRequest,
) -> Result<v1::ImageStatusResponse, Status> {
    let spec = name_of(request.image)?;
    let Some(image) =
        service.store.resolve_for(&spec.image, &spec.runtime_handler).map_err(|e| status(&e))?
    else {
        return Ok(v1::ImageStatusResponse { image: None, info: HashMap::new() });
    };
    let mut info = HashMap::new();
    if request.verbose {
        let chain = image.layers.last().map(|layer| layer.chain_id.to_string());
        let text = json!({
            "chainID": chain,
            "imageSpec": image.config,
            "manifest": image.manifest,
            "storedAt": image.stored_at,
        });
        info.insert("info".to_owned(), text.to_string());
    }
    Ok(v1::ImageStatusResponse { image: Some(to_cri(&image, Some(&spec))), info })
}

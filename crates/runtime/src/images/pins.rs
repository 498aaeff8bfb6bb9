//! Pins: images that no collection takes.

use std::sync::Arc;

use super::{ImageError, ImageRecord, ImageStore};
use crate::builtin;

impl ImageStore {
    /// Pins an image, or lets it go again (CRI shows it as `pinned`; kubelets never collect those). The
    /// built-in image is always pinned.
    pub async fn set_pinned(
        self: &Arc<Self>,
        name: &str,
        pinned: bool,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let image = self.resolve(name)?.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        if image.pinned == pinned {
            return Ok(image);
        }
        if builtin::is_builtin(&image) {
            return Err(ImageError::Builtin(name.to_owned()));
        }
        let (this, name) = (self.clone(), name.to_owned());
        let change = move || {
            this.database.change(|images| {
                // Removed meanwhile.
                let image = images.get_mut(&image.id).ok_or(ImageError::NotFound(name))?;
                Arc::make_mut(image).pinned = pinned;
                Ok(image.clone())
            })
        };
        tokio::task::spawn_blocking(change).await.map_err(|_| ImageError::Worker)?
    }
}

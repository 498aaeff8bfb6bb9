//! `ImageFsInfo`: what images take, and what containers write.

use sampan_cri::v1;
use tonic::Status;

use super::{ImageService, filesystem, status};

pub(super) async fn image_fs_info(service: &ImageService) -> Result<v1::ImageFsInfoResponse, Status> {
    let info = service.store.fs_info().await.map_err(|e| status(&e))?;
    let snapshots = service.store.snapshots().clone();
    let dir = snapshots.dir().to_path_buf();
    let walk = move || {
        let containers = snapshots.containers().unwrap_or_default();
        containers
            .iter()
            .filter_map(|id| snapshots.usage(id).ok())
            .fold((0, 0), |(bytes, inodes), usage| (bytes + usage.bytes, inodes + usage.inodes))
    };
    let (bytes, inodes) =
        tokio::task::spawn_blocking(walk).await.map_err(|e| Status::internal(e.to_string()))?;
    Ok(v1::ImageFsInfoResponse {
        image_filesystems: vec![filesystem::usage(&info.mountpoint, info.used_bytes, info.inodes_used)],
        container_filesystems: vec![filesystem::usage(&dir, bytes, inodes)],
    })
}

//! Space on a file system, as CRI says it.

use sampan_cri::v1;

pub(super) fn usage(mountpoint: &std::path::Path, bytes: u64, inodes: u64) -> v1::FilesystemUsage {
    let now = jiff::Timestamp::now().as_nanosecond();
    v1::FilesystemUsage {
        timestamp: i64::try_from(now).unwrap_or(i64::MAX),
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.display().to_string() }),
        used_bytes: Some(v1::UInt64Value { value: bytes }),
        inodes_used: Some(v1::UInt64Value { value: inodes }),
    }
}

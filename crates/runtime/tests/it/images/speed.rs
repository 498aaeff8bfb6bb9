//! Measures one large pull. Not run by default: `cargo test -p sampan-runtime --release -- --ignored speed`.

use std::time::Instant;

use super::builder::{open, pull};

/// `SAMPAN_PULL_IMAGE` names an image of a running registry; `SAMPAN_PULL_DIR` where it is unpacked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed_of_a_large_pull() {
    let Ok(image) = std::env::var("SAMPAN_PULL_IMAGE") else { return };
    let base = std::env::var("SAMPAN_PULL_DIR").unwrap_or_else(|_| "/var/tmp".to_owned());
    for _ in 0..3 {
        let dir = tempfile::tempdir_in(&base).unwrap();
        let store = open(dir.path()).await;
        let start = Instant::now();
        let record = pull(&store, &image).await.unwrap();
        let wall = start.elapsed();
        let unpacked: u64 = record.layers.len() as u64;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default().to_owned();
        println!("{image}: {wall:?}, {} bytes compressed, {unpacked} layers, {peak}", record.size);
    }
}

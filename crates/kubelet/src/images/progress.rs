//! How far a pull has come, in words for the container's Waiting message: what nobody else shows. It begins
//! when a pull takes longer than [`INTERVAL`], so quick ones cost the API nothing.

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use sampan_cri::progress::{Layer, LayerState, Phase, WatchResponse};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use crate::cri::ContainerRuntime;

/// The message changes at most this often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Tells that other pulls come first, when that takes long.
pub(super) async fn tell_waiting(written: &str, told: &watch::Sender<String>) -> Infallible {
    tokio::time::sleep(INTERVAL).await;
    told.send_replace(format!("Waiting to pull image {written:?}: other pulls are running"));
    std::future::pending().await
}

/// Tells about the pull of `image` until it is dropped. Runtimes without our service are left alone.
pub(super) async fn tell(
    cri: &dyn ContainerRuntime,
    image: &str,
    written: &str,
    told: &watch::Sender<String>,
) -> Infallible {
    let mut due = Instant::now() + INTERVAL;
    tokio::time::sleep_until(due).await;
    loop {
        match cri.watch_pull(image).await {
            Ok(mut states) => {
                while let Some(Ok(state)) = states.next().await {
                    let Some(words) = words(&state, written) else { continue };
                    if Instant::now() >= due && *told.borrow() != words {
                        told.send_replace(words);
                        due = Instant::now() + INTERVAL;
                    }
                }
            }
            Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// `Pulling image "x": 45.2 MiB of 120.0 MiB (4 of 7 layers)`.
fn words(state: &WatchResponse, written: &str) -> Option<String> {
    let begin = format!("Pulling image {written:?}:");
    match state.phase() {
        Phase::Resolving => Some(format!("{begin} asking the registry")),
        Phase::Done | Phase::Failed => None,
        Phase::Pulling => {
            let is = |layer: &Layer, states: &[LayerState]| states.contains(&layer.state());
            let all = state.layers.len();
            let here = |layer: &&Layer| is(layer, &[LayerState::Complete, LayerState::Exists]);
            let complete = state.layers.iter().filter(here).count();
            // What was here before is nothing to wait for.
            let fetched: Vec<&Layer> =
                state.layers.iter().filter(|l| !is(l, &[LayerState::Exists])).collect();
            let done: u64 = fetched.iter().map(|layer| layer.downloaded).sum();
            let total: u64 = fetched.iter().map(|layer| layer.total.max(layer.downloaded)).sum();
            let unpacking = done == total && complete < all;
            let unpacking = if unpacking { ", unpacking" } else { "" };
            let (done, total) = (human_bytes(done), human_bytes(total));
            Some(format!("{begin} {done} of {total} ({complete} of {all} layers){unpacking}"))
        }
    }
}

/// `45.2 MiB`.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        let layer = |state: LayerState, downloaded, total| Layer {
            state: state.into(),
            downloaded,
            total,
            ..Default::default()
        };
        let mib = |n: f64| (n * 1_048_576.0) as u64;
        let mut state = WatchResponse {
            phase: Phase::Pulling.into(),
            layers: vec![
                layer(LayerState::Exists, 0, mib(50.0)),
                layer(LayerState::Complete, mib(40.0), mib(40.0)),
                layer(LayerState::Downloading, mib(5.2), mib(80.0)),
            ],
            ..Default::default()
        };
        assert_eq!(
            words(&state, "x").as_deref(),
            Some("Pulling image \"x\": 45.2 MiB of 120.0 MiB (2 of 3 layers)")
        );
        state.layers[2] = layer(LayerState::Unpacking, mib(80.0), mib(80.0));
        assert_eq!(
            words(&state, "x").as_deref(),
            Some("Pulling image \"x\": 120.0 MiB of 120.0 MiB (2 of 3 layers), unpacking")
        );
        let state = WatchResponse { phase: Phase::Resolving.into(), ..Default::default() };
        assert_eq!(words(&state, "x").as_deref(), Some("Pulling image \"x\": asking the registry"));
    }
}

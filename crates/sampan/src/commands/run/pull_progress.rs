//! Shows how far image pulls have come: bars on a terminal, a line every two seconds elsewhere.
//!
//! Progress is not in the CRI; the embedded runtime tells it by a service of its own on the same socket. A
//! runtime that has none (containerd) simply gives no bars.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use sampan_cri::progress::{Layer, LayerState, Phase, WatchRequest, WatchResponse};
use tokio::task::JoinSet;

use crate::output::{Printer, human_bytes};

/// How long to wait for the pull of an image to begin: it may be queued behind others.
const WAIT_SECONDS: u32 = 600;
/// Between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Watches the pulls of `images` until the returned set is dropped.
pub(crate) fn show(socket: &Path, images: HashSet<String>, printer: Printer) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Ok(client) = sampan_cri::client::connect_lazy(&format!("unix://{}", socket.display())) else {
        return tasks;
    };
    for image in images {
        let (client, printer) = (client.clone(), printer.clone());
        tasks.spawn(watch(client, image, printer));
    }
    tasks
}

/// Shows one image's pull from its beginning to its end.
pub(crate) async fn watch(mut client: sampan_cri::client::Client, image: String, printer: Printer) {
    let request = WatchRequest { image: image.clone(), wait_seconds: WAIT_SECONDS };
    let Ok(answer) = client.progress.watch(request).await else { return };
    let mut states = answer.into_inner();
    let mut view = View { printer, image, bars: BTreeMap::new(), told: Instant::now() };
    while let Ok(Some(state)) = states.message().await {
        view.show(&state);
    }
    view.clear();
}

struct View {
    printer: Printer,
    image: String,
    bars: BTreeMap<String, ProgressBar>,
    told: Instant,
}

impl View {
    fn show(&mut self, state: &WatchResponse) {
        if state.phase() != Phase::Pulling {
            return;
        }
        if self.printer.draws_bars() {
            for layer in &state.layers {
                self.draw(layer);
            }
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            self.printer.status(summary(&self.image, &state.layers));
        }
    }

    fn draw(&mut self, layer: &Layer) {
        let bar = self.bars.entry(layer.digest.clone()).or_insert_with(|| {
            let digest = layer.digest.rsplit(':').next().unwrap_or(&layer.digest);
            self.printer.bar(digest.chars().take(12).collect(), layer.total)
        });
        bar.set_length(layer.total);
        bar.set_position(if layer.state() == LayerState::Exists { layer.total } else { layer.downloaded });
        bar.set_message(match layer.state() {
            LayerState::Waiting => "waiting",
            LayerState::Downloading => "downloading",
            LayerState::Unpacking => "unpacking",
            LayerState::Complete => "done",
            LayerState::Exists => "already there",
        });
    }

    fn clear(self) {
        for bar in self.bars.into_values() {
            bar.finish_and_clear();
        }
    }
}

/// `Pulling image "x": 45.2 MiB of 120.0 MiB (4 of 7 layers)`.
fn summary(image: &str, layers: &[Layer]) -> String {
    let complete = |layer: &&Layer| matches!(layer.state(), LayerState::Complete | LayerState::Exists);
    let here =
        |layer: &Layer| if layer.state() == LayerState::Exists { layer.total } else { layer.downloaded };
    let (done, total): (u64, u64) =
        (layers.iter().map(here).sum(), layers.iter().map(|layer| layer.total).sum());
    let (ready, count) = (layers.iter().filter(complete).count(), layers.len());
    format!(
        "Pulling image \"{image}\": {} of {} ({ready} of {count} layers)",
        human_bytes(done),
        human_bytes(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_bytes_and_layers() {
        let layer = |state: LayerState, downloaded, total| Layer {
            digest: "sha256:0".into(),
            state: state.into(),
            downloaded,
            total,
            unpacked: 0,
        };
        let layers = [
            layer(LayerState::Exists, 0, 1 << 20),
            layer(LayerState::Complete, 1 << 20, 1 << 20),
            layer(LayerState::Downloading, 1 << 19, 1 << 20),
        ];
        assert_eq!(summary("x", &layers), "Pulling image \"x\": 2.5 MiB of 3.0 MiB (2 of 3 layers)");
    }
}

//! Progress of a pull, for bars and messages.

use sampan_oci::Digest;
use tokio::sync::watch;

/// Where one layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Waits for one of the parallel downloads; moves on when one is free.
    Waiting,
    /// Bytes arrive and are unpacked at once; moves on with the last verified byte.
    Downloading,
    /// The last bytes are being written and the layer is put in its place.
    Unpacking,
    /// Unpacked, verified and kept.
    Done,
    /// Was there before.
    Exists,
}

/// One layer's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// The compressed layer.
    pub digest: Digest,
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that arrived.
    pub done: u64,
    /// Bytes of the uncompressed tar that were unpacked.
    pub unpacked: u64,
    /// Where it stands.
    pub state: LayerState,
}

/// A pull's progress; layers appear once the manifest is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Lowest layer first.
    pub layers: Vec<LayerProgress>,
}

impl PullProgress {
    /// Bytes that arrived and bytes in all.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.iter().fold((0, 0), |(done, total), l| (done + l.done, total + l.total))
    }

    /// Layers that are finished.
    pub fn finished(&self) -> usize {
        self.layers.iter().filter(|l| matches!(l.state, LayerState::Done | LayerState::Exists)).count()
    }
}

/// The sending side; does nothing when nobody asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reporter(Option<watch::Sender<PullProgress>>);

impl Reporter {
    pub(crate) fn new(sender: Option<watch::Sender<PullProgress>>) -> Self {
        Self(sender)
    }

    pub(crate) fn start(&self, layers: Vec<LayerProgress>) {
        if let Some(sender) = &self.0 {
            sender.send_replace(PullProgress { layers });
        }
    }

    /// Takes over what a layer's own worker tells.
    pub(crate) fn layer(&self, layer: usize, state: LayerState, done: u64, unpacked: u64) {
        if let Some(sender) = &self.0 {
            sender.send_modify(|progress| {
                if let Some(l) = progress.layers.get_mut(layer) {
                    let finished = matches!(state, LayerState::Done | LayerState::Exists);
                    l.done = if finished { l.total } else { done.min(l.total) };
                    l.unpacked = unpacked;
                    l.state = state;
                }
            });
        }
    }
}

//! `kill -9` of the server at the worst moments of a pull: what is left is never wrong, never fetched twice, and
//! cleared away.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::fixture::{
    Fault, Layer, Line, Node, Registry, SmallDisk, TestImage, busybox_layer, eventually, noise, tar_of,
};

/// Files of the layer that takes long to unpack.
const FILES: usize = 3000;

/// A node, and an image of three layers behind a line that holds them up.
struct Pull {
    node: Node,
    line: Line,
    image: String,
    /// The layers' digests and sizes: busybox, many files, one large file.
    layers: [(String, u64); 3],
    _registry: Registry,
}

impl Pull {
    fn prepare() -> Self {
        let many: Vec<(String, Vec<u8>)> =
            (0..FILES).map(|i| (format!("many/{i}"), format!("this is {i}").into_bytes())).collect();
        let many: Vec<(&str, &[u8])> =
            many.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
        let layers = [
            Layer::gzip(&busybox_layer()),
            Layer::gzip(&tar_of(&many)),
            Layer::gzip(&tar_of(&[("large", &noise(4 << 20))])),
        ];
        let registry = Registry::start();
        let line = Line::to(&registry.host());
        let image = registry.push("killed/app:1", &TestImage::of(&layers, &json!({})));
        let image = image.replace(&registry.host(), &line.host());
        let layers = layers.map(|layer| (layer.digest(), layer.size()));
        Self { node: Node::start(), line, image, layers, _registry: registry }
    }

    /// Holds a layer's blob at a byte of it.
    fn hold(&self, layer: usize, at: u64) {
        self.line.fault(&format!("/blobs/{}", self.layers[layer].0), usize::MAX, Fault::Hold(at));
    }

    /// A pod that looks at all layers.
    fn begin(&self) {
        let script = "busybox sha256sum /large; cat /many/7 /many/2999; ls /many | busybox wc -l";
        self.node.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: app}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: '{}', command: [sh, -c, '{script}']}}\n",
            self.image
        ));
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.node.path("data/runtime").join(name)
    }

    fn hex(&self, layer: usize) -> &str {
        self.layers[layer].0.trim_start_matches("sha256:")
    }

    /// Whether a layer's blob is complete.
    fn is_stored(&self, layer: usize) -> bool {
        self.dir("content/blobs/sha256").join(self.hex(layer)).exists()
    }

    /// How much of a layer's blob has arrived.
    fn arrived(&self, layer: usize) -> u64 {
        let path = self.dir("content/ingest").join(format!("sha256-{}", self.hex(layer)));
        fs::metadata(path).map_or(0, |meta| meta.len())
    }

    /// Files of the layer of many that are unpacked where nobody sees them yet.
    fn unpacked(&self) -> usize {
        let staged = fs::read_dir(self.dir("snapshots/tmp")).into_iter().flatten().flatten();
        let many = staged.filter_map(|dir| fs::read_dir(dir.path().join("fs/many")).ok());
        many.map(Iterator::count).max().unwrap_or(0)
    }

    /// The server is killed now and started again: the pod runs, `complete` layers are not fetched a second time,
    /// the one in `resumed` from this byte on, and nothing half is left.
    fn survives(mut self, complete: &[usize], resumed: Option<(usize, u64)>, mend: impl FnOnce()) {
        self.node.kill_9();
        mend();
        let before = self.line.requests("/blobs/").len();
        self.line.open();
        self.node.launch();
        self.node.wait_for("pod/app", "{.status.phase}", "Succeeded");
        let log = self.node.kubectl(&["logs", "app"]).ok();
        let sum = sha256(&noise(4 << 20));
        assert_eq!(log, format!("{sum}  /large\nthis is 7this is 2999{FILES}\n"));
        let after = &self.line.requests("/blobs/")[before..];
        for layer in complete {
            let again = after.iter().find(|request| request.line.contains(&self.layers[*layer].0));
            assert!(again.is_none(), "layer {layer} was complete: {again:?}");
        }
        if let Some((layer, from)) = resumed {
            let of: Vec<_> =
                after.iter().filter(|request| request.line.contains(&self.layers[layer].0)).collect();
            assert!(of.len() == 1 && of[0].from == Some(from), "layer {layer} goes on at {from}: {after:?}");
        }
        // Three layers were asked for. The configuration is shown once more: no image of this repository is recorded.
        assert!(after.len() <= 4 - complete.len(), "{after:?}");
        for dir in ["snapshots/tmp", "content/ingest"] {
            let left: Vec<_> = fs::read_dir(self.dir(dir)).unwrap().flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn killed_during_a_download() {
    let pull = Pull::prepare();
    let at = 3_000_000;
    pull.hold(2, at);
    pull.begin();
    eventually("most of the large layer", || {
        (pull.arrived(2) == at && pull.is_stored(0) && pull.is_stored(1)).then_some(())
    });
    pull.survives(&[0, 1], Some((2, at)), || ());
}

#[test]
fn killed_during_unpacking() {
    let pull = Pull::prepare();
    // All but its end: most of its files are there, the layer is not. The one above it is unpacked and waits for it.
    let at = pull.layers[1].1 - 100;
    pull.hold(1, at);
    pull.begin();
    eventually("many files", || {
        (pull.unpacked() > FILES / 2 && pull.arrived(1) == at && pull.is_stored(0) && pull.is_stored(2))
            .then_some(())
    });
    assert!(pull.unpacked() < FILES);
    pull.survives(&[0, 2], Some((1, at)), || ());
}

#[test]
fn killed_while_a_complete_blob_is_unpacked() {
    let mut pull = Pull::prepare();
    pull.hold(0, 1000);
    pull.begin();
    eventually("the upper layers", || (pull.is_stored(1) && pull.is_stored(2)).then_some(()));
    // The next start unpacks them from the disk, as far as they go without the one below.
    pull.node.kill_9();
    pull.node.launch();
    eventually("them once more", || (pull.unpacked() > 0).then_some(()));
    pull.survives(&[1, 2], None, || ());
}

#[test]
fn killed_between_unpacking_and_recording() {
    let pull = Pull::prepare();
    // A directory that takes no files: the pull gets as far as its record, and not further.
    let disk = SmallDisk::mount(&pull.dir("images"), "nr_inodes=1");
    pull.begin();
    pull.node.wait_for("pod/app", "{.status.containerStatuses[0].state.waiting.reason}", "ImagePullBackOff");
    let message = pull.node.field("pod/app", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(message.contains("no space left on the image file system at"), "{message}");
    assert!((0..3).all(|layer| pull.is_stored(layer)) && pull.unpacked() == 0);
    assert!(!pull.node.sampan(&["image", "ls"]).ok().contains("killed/app"));
    pull.survives(&[0, 1, 2], None, || drop(disk));
}

//! The image made from the executable.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use sampan_runtime::builtin::Builtin;
use sampan_runtime::images::ImageStore;

use sampan_runtime::images::ArchiveFormat;

use super::builder::{config, open, pull};

#[tokio::test(flavor = "multi_thread")]
async fn the_toolbox_is_always_there() {
    let dir = tempfile::tempdir().unwrap();
    let executable = dir.path().join("sampan");
    std::fs::copy("/bin/true", &executable).unwrap();
    let mut settings = config(&dir.path().join("data"));
    let builtin = Builtin {
        executable: executable.clone(),
        applets: vec!["echo".into(), "sh".into()],
        cmd: vec!["/bin/sh".into()],
    };
    settings.builtin = Some(builtin);
    let store = ImageStore::open(settings.clone()).await.unwrap();
    let image = pull(&store, "sampan.local/toolbox").await.unwrap();
    let root = store.snapshots().layer(&image.layers[0].chain_id).unwrap();
    assert_eq!(std::fs::read_link(root.join("bin/echo")).unwrap(), PathBuf::from("sampan"));
    assert_eq!(
        std::fs::metadata(root.join("bin/sh")).unwrap().ino(),
        std::fs::metadata(&executable).unwrap().ino()
    );
    assert_eq!(std::fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    // By any tag, and by its digest.
    for name in
        ["sampan.local/toolbox:latest", "sampan.local/toolbox:v9", &image.image_ref(), &image.id.to_string()]
    {
        assert_eq!(store.resolve(name).unwrap().unwrap().id, image.id, "{name}");
    }
    let error = pull(&store, "sampan.local/other").await.unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
    assert!(store.remove_image("sampan.local/toolbox").await.is_err());
    assert!(store.prune(Default::default()).await.unwrap().deleted.is_empty());
    // Saved, it is an image like any other, and the same every time; only its name stays here.
    let names = ["sampan.local/toolbox".to_owned()];
    let saved = store.save(&names, ArchiveFormat::Docker, Vec::new()).await.unwrap();
    assert_eq!(store.save(&names, ArchiveFormat::Docker, Vec::new()).await.unwrap(), saved);
    assert!(
        String::from_utf8_lossy(&saved)
            .contains(r#""io.containerd.image.name":"sampan.local/toolbox:latest""#)
    );
    let other = open(&dir.path().join("other")).await;
    let loaded = other.load(std::io::Cursor::new(saved)).await.unwrap().remove(0);
    assert_eq!(loaded.config.config, image.config.config);
    assert_eq!(loaded.repo_tags, Vec::<String>::new());
    let root = other.snapshots().layer(&loaded.layers[0].chain_id).unwrap();
    assert_eq!(std::fs::read(root.join("bin/sampan")).unwrap(), std::fs::read(&executable).unwrap());
    assert_eq!(std::fs::read_link(root.join("bin/echo")).unwrap(), PathBuf::from("sampan"));
    assert_eq!(std::fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    // A new executable makes a new image; nothing of the old one stays.
    drop(store);
    std::fs::write(&executable, "changed").unwrap();
    let store = ImageStore::open(settings.clone()).await.unwrap();
    let changed = pull(&store, "sampan.local/toolbox:1").await.unwrap();
    assert_ne!(changed.id, image.id);
    assert_eq!(store.list().len(), 1);
    assert!(store.snapshots().layer(&image.layers[0].chain_id).is_none());
    drop(store);
    settings.builtin = None;
    let store = ImageStore::open(settings).await.unwrap();
    assert!(store.list().is_empty());
}

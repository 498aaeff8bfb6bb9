//! Images as containers see them. Mounts for real.

use std::fs;

use super::builder::{Coding, Image, open, pull, tar};
use super::fake::{Auth, Fake};

#[tokio::test(flavor = "multi_thread")]
async fn layers_whiteouts_and_writes() {
    let (fake, dir) = (Fake::start(Auth::None).await, tempfile::tempdir().unwrap());
    let image = Image::new(&[
        (
            tar(&[("etc/", b""), ("etc/gone", b"1"), ("etc/stays", b"1"), ("opt/", b""), ("opt/old", b"1")]),
            Coding::Gzip,
        ),
        (tar(&[("etc/.wh.gone", b""), ("opt/.wh..wh..opq", b""), ("opt/new", b"2")]), Coding::Gzip),
    ]);
    image.publish(&fake, "1");
    let store = open(dir.path()).await;
    let record = pull(&store, &fake.image("a:1")).await.unwrap();
    let snapshots = store.snapshots();
    let target = dir.path().join("rootfs");
    fs::create_dir(&target).unwrap();
    let rootfs = snapshots.prepare("c1", &record, None).unwrap();
    snapshots.mount(&rootfs, &target, None).unwrap();
    let names = |d: &str| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(target.join(d))
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("etc"), ["stays"]);
    assert_eq!(names("opt"), ["new"]);
    fs::write(target.join("etc/mine"), "x").unwrap();
    assert_eq!(snapshots.usage("c1").unwrap().inodes, 3);
    snapshots.unmount(&target).unwrap();
    // The same again after a restart.
    drop(store);
    let store = open(dir.path()).await;
    let snapshots = store.snapshots();
    let again = snapshots.rootfs("c1").unwrap().unwrap();
    assert_eq!(again, rootfs);
    snapshots.mount(&again, &target, None).unwrap();
    assert!(target.join("etc/mine").exists());
    snapshots.unmount(&target).unwrap();
    assert_eq!(snapshots.containers().unwrap(), ["c1"]);
    snapshots.remove("c1").unwrap();
    snapshots.remove("c1").unwrap();
    assert!(snapshots.rootfs("c1").unwrap().is_none());
    snapshots.mount_image(&record, &target, None).unwrap();
    assert!(fs::write(target.join("x"), "").is_err());
    assert!(target.join("etc/stays").exists());
    snapshots.unmount(&target).unwrap();
    for bad in ["", "../x", "a/b", ".hidden"] {
        assert!(snapshots.prepare(bad, &record, None).is_err());
    }
}

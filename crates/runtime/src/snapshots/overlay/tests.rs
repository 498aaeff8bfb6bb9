//! Needs root: mounts for real, in temporary directories.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

fn layers(dir: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let layer = dir.join(format!("{i:064}")).join("fs");
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("file-{i}")), i.to_string()).unwrap();
            fs::write(layer.join("same"), i.to_string()).unwrap();
            layer
        })
        .collect()
}

fn check(count: usize, mount: impl Fn(&[PathBuf], Option<(&Path, &Path)>, &Path) -> io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(dir.path(), count);
    let [upper, work, target] = ["upper", "work", "target"].map(|name| dir.path().join(name));
    for d in [&upper, &work, &target] {
        fs::create_dir(d).unwrap();
    }
    mount(&lower, Some((&upper, &work)), &target).unwrap();
    assert_eq!(fs::read_to_string(target.join("same")).unwrap(), "0", "the first one is on top");
    assert_eq!(fs::read_dir(&target).unwrap().count(), count + 1);
    fs::write(target.join("new"), "x").unwrap();
    assert!(upper.join("new").exists());
    unmount(&target).unwrap();
    unmount(&target).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn four_hundred_layers() {
    check(400, |lower, writable, target| mount(lower, writable, target, None));
}

#[test]
fn older_kernels_take_what_fits_by_path_and_more_by_descriptor() {
    check(3, mount_old);
    check(150, mount_old);
    let dir = tempfile::tempdir().unwrap();
    let error = mount_old(&layers(dir.path(), 300), None, dir.path()).unwrap_err();
    assert!(error.to_string().contains("300 layers"), "{error}");
}

#[test]
fn read_only_without_upper() {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(dir.path(), 2);
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    mount(&lower, None, &target, None).unwrap();
    let error = fs::write(target.join("new"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    unmount(&target).unwrap();
}

/// A user namespace whose root is `first` on the host; it lasts as long as the child.
fn user_namespace(first: u32) -> (std::process::Child, MappedIds) {
    let child = std::process::Command::new("unshare").args(["--user", "sleep", "60"]).spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    while fs::read_link(proc.join("ns/user")).unwrap() == own {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), format!("0 {first} 65536")).unwrap();
    }
    let namespace = fs::File::open(proc.join("ns/user")).unwrap();
    (child, MappedIds { namespace, uid: first, gid: first })
}

#[test]
fn layers_with_mapped_ids_by_descriptor_and_attached() {
    use std::os::unix::fs::MetadataExt;
    let (mut child, ids) = user_namespace(131_072);
    let mapped = |target: &Path| {
        let seen = fs::metadata(target.join("same")).unwrap();
        assert_eq!((seen.uid(), seen.gid()), (131_072, 131_072));
        assert!(!attached::directory(target).exists());
    };
    check(3, |lower, writable, target| {
        mount(lower, writable, target, Some(&ids))?;
        mapped(target);
        Ok(())
    });
    check(3, |lower, writable, target| {
        let attached = Attached::new(lower, target, &ids)?;
        mount(&attached.views, writable, target, None)?;
        drop(attached);
        mapped(target);
        Ok(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

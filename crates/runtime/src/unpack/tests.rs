//! Layers as tools write them, and layers meant to break out, to confuse or to exhaust.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use ::tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// Writes entries whose names are taken as they are, which a well-behaved library refuses to.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, name: &str, kind: EntryType, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, EntryType::Regular, "", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, target, 0o644, b"")
    }

    fn pax(self, pairs: &[(&str, &[u8])]) -> Self {
        let mut record = Vec::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            length = rest + length.to_string().len();
            record.extend_from_slice(format!("{length} {key}=").as_bytes());
            record.extend_from_slice(value);
            record.push(b'\n');
        }
        self.entry("pax", EntryType::XHeader, "", 0o644, &record)
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn unpack(self) -> (TempDir, Result<Unpacked, UnpackError>) {
        let outer = tempfile::tempdir().unwrap();
        let fs = outer.path().join("a/b/fs");
        fs::create_dir_all(&fs).unwrap();
        let result = unpack(&self.bytes()[..], &fs, &UnpackLimits::default());
        (outer, result)
    }

    fn good(self) -> (TempDir, PathBuf, Unpacked) {
        let (outer, result) = self.unpack();
        let fs = outer.path().join("a/b/fs");
        (outer, fs, result.unwrap())
    }

    fn bad(self) -> String {
        crate::network::chain(&self.unpack().1.unwrap_err())
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn owners_modes_times_links_and_sizes_come_through() {
    let mut header = Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o4755);
    header.set_uid(1234);
    header.set_gid(5678);
    header.set_mtime(1_234_567_890);
    let mut tar = Builder::new(Vec::new());
    let long = format!("{}/file", "directory-with-a-long-name/".repeat(8));
    tar.append_data(&mut header, &long, &b"hello"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack(&bytes[..], dir.path(), &UnpackLimits::default()).unwrap();
    let meta = fs::metadata(dir.path().join(&long)).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime()),
        (1234, 5678, 0o4755, 1_234_567_890)
    );
    assert_eq!(unpacked.implicit.len(), 8);
    assert_eq!(unpacked.inodes, 9);
}

#[test]
fn pax_names_ids_times_and_attributes() {
    let caps = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (_d, fs, _) = Layer::default()
        .pax(&[
            ("path", "näme".as_bytes()),
            ("uid", b"3000000"),
            ("mtime", b"1000000000.25"),
            ("SCHILY.xattr.security.capability", &caps),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("short", "x")
        .good();
    let path = fs.join("näme");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.mtime(), meta.mtime_nsec()), (3_000_000, 1_000_000_000, 250_000_000));
    let mut value = [0u8; 64];
    assert_eq!(rustix::fs::getxattr(&path, "security.capability", &mut value[..]).unwrap(), caps.len());
    assert!(rustix::fs::getxattr(&path, "trusted.overlay.redirect", &mut value[..]).is_err());
}

#[test]
fn directory_times_survive_what_is_put_into_them() {
    let (_d, fs, _) = Layer::default().dir("d").file("d/f", "x").dir("d/e").good();
    assert_eq!(fs::metadata(fs.join("d")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn dot_dot_stays_inside() {
    let (d, fs, _) = Layer::default().file("../../../evil", "x").file("/etc/../../evil2", "y").good();
    assert_eq!(read(fs.join("evil")), "x");
    assert_eq!(read(fs.join("evil2")), "y");
    for up in ["a/b", "a", ""] {
        assert!(!d.path().join(up).join("evil").exists() && !d.path().join(up).join("evil2").exists());
    }
}

#[test]
fn links_do_not_lead_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let (d, fs, _) = Layer::default()
        .symlink("abs", target)
        .file("abs/evil", "x")
        .symlink("up", "../../..")
        .file("up/evil", "y")
        .symlink("a", "b")
        .symlink("b", "../../etc")
        .file("a/passwd", "z")
        .good();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // Confined: the link's target within the layer.
    assert_eq!(read(fs.join(target.trim_start_matches('/')).join("evil")), "x");
    assert_eq!(read(fs.join("evil")), "y");
    assert_eq!(read(fs.join("etc/passwd")), "z");
    assert!(!d.path().join("evil").exists());
    // A file in place of a link replaces the link, not its target.
    let (_d, fs, _) = Layer::default().file("t", "old").symlink("l", "t").file("l", "new").good();
    assert_eq!((read(fs.join("t")), read(fs.join("l"))), ("old".into(), "new".into()));
}

#[test]
fn link_loops_are_errors() {
    assert!(
        Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", "").bad().contains("symbolic links")
    );
}

#[test]
fn hard_links_do_not_lead_outside() {
    let (d, fs, unpacked) = Layer::default().link("stolen", "../../../secret").good();
    assert!(!fs.join("stolen").exists() && !d.path().join("secret").exists());
    assert_eq!(unpacked.dangling, [(PathBuf::from("stolen"), Path::new("secret").into())]);
    let error = parents::complete(&fs, &[], unpacked, &UnpackLimits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::LinkTarget { .. }), "{error}");
    let (_d, fs, unpacked) = Layer::default().symlink("l", "/etc").link("stolen", "l/passwd").good();
    assert!(!fs.join("stolen").exists(), "through a link to /etc");
    assert_eq!(unpacked.dangling.len(), 1);
}

#[test]
fn hard_links_within() {
    let (_d, fs, _) =
        Layer::default().file("d/a", "x").link("b", "d/a").link("b", "b").link("d/a", "b").good();
    assert_eq!(fs::metadata(fs.join("d/a")).unwrap().ino(), fs::metadata(fs.join("b")).unwrap().ino());
    assert!(Layer::default().dir("d").link("b", "d").bad().contains("hard link to a directory"));
}

#[test]
fn devices_and_pipes_are_made_as_given() {
    let mut header = Header::new_gnu();
    header.set_path("null").unwrap();
    header.set_entry_type(EntryType::Char);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_mode(0o666);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let layer = Layer(header.as_bytes().to_vec()).entry("pipe", EntryType::Fifo, "", 0o600, b"");
    let (_d, fs, _) = layer.good();
    let meta = fs::metadata(fs.join("null")).unwrap();
    assert!(meta.file_type().is_char_device());
    assert_eq!((meta.rdev(), meta.permissions().mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(fs::metadata(fs.join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_the_overlays_own() {
    let (_d, fs, _) = Layer::default()
        .file("etc/.wh.passwd", "")
        .file("opt/.wh..wh..opq", "")
        .file("opt/new", "x")
        .file(".wh..wh.plnk", "")
        .good();
    let meta = fs::symlink_metadata(fs.join("etc/passwd")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
    let mut value = [0u8; 4];
    assert_eq!(rustix::fs::getxattr(fs.join("opt"), "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
    assert_eq!(fs::read_dir(&fs).unwrap().count(), 2);
}

#[test]
fn whiteouts_hide_other_layers_files_not_their_own() {
    let mut value = [0u8; 4];
    // Whiteout first, then a directory of the same name: only this layer's content counts.
    let (_d, fs, _) = Layer::default().file(".wh.d", "").dir("d").file("d/x", "x").good();
    assert_eq!(rustix::fs::getxattr(fs.join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
    // The other way round, and with a directory that is not described.
    let (_d, fs, _) =
        Layer::default().file("d/x", "x").file(".wh.d", "").file(".wh.e", "").file("e/y", "y").good();
    assert_eq!((read(fs.join("d/x")), read(fs.join("e/y"))), ("x".into(), "y".into()));
    for d in ["d", "e"] {
        assert_eq!(rustix::fs::getxattr(fs.join(d), "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
    }
    let (_d, fs, _) = Layer::default().file("f", "mine").file(".wh.f", "").good();
    assert_eq!(read(fs.join("f")), "mine");
    // Outside of the layer there is nothing to hide.
    assert!(Layer::default().file(".wh...", "").bad().contains("whiteout of no name"));
    let (d, _, _) = Layer::default().file("../../.wh.b", "").good();
    assert!(d.path().join("a/b").is_dir());
}

#[test]
fn the_last_of_several_entries_counts() {
    let (_d, fs, _) = Layer::default()
        .file("x", "1")
        .file("x", "2")
        .dir("d")
        .file("d/deep/f", "")
        .file("d", "now a file")
        .file("y", "")
        .dir("y")
        .file("y/z", "z")
        .symlink("s", "x")
        .dir("s")
        .file("s/in", "i")
        .good();
    assert_eq!(
        (read(fs.join("x")), read(fs.join("d")), read(fs.join("y/z"))),
        ("2".into(), "now a file".into(), "z".into())
    );
    assert_eq!(read(fs.join("s/in")), "i");
}

#[test]
fn entries_and_bytes_are_bounded() {
    let limits = UnpackLimits { max_entries: 100, max_bytes: 10_000, ..UnpackLimits::default() };
    let run = |layer: Layer| {
        let dir = tempfile::tempdir().unwrap();
        unpack(&layer.bytes()[..], dir.path(), &limits).unwrap_err()
    };
    let many = (0..101).fold(Layer::default(), |l, i| l.file(&format!("f{i}"), ""));
    assert!(matches!(run(many), UnpackError::TooManyEntries { limit: 100 }));
    let deep = (0..60).fold(Layer::default(), |l, i| l.file(&format!("{i}a/{i}b/f"), ""));
    assert!(matches!(run(deep), UnpackError::TooManyEntries { .. }));
    assert!(matches!(run(Layer::default().file("f", &"x".repeat(10_001))), UnpackError::TooLarge { .. }));
    // Records before an entry count as entries.
    let extended = (0..60).fold(Layer::default(), |l, i| l.pax(&[("uid", b"1")]).file(&format!("f{i}"), ""));
    assert!(matches!(run(extended), UnpackError::TooManyEntries { .. }));
    // Claims 8 GiB, has nothing.
    let mut header = Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_size(8 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    assert!(matches!(run(Layer(header.as_bytes().to_vec())), UnpackError::TooLarge { .. }));
}

#[test]
fn nesting_and_names_are_bounded() {
    assert!(
        Layer::default()
            .pax(&[("path", "d/".repeat(1000).as_bytes())])
            .file("f", "")
            .bad()
            .contains("nested too deeply")
    );
    assert!(
        Layer::default()
            .pax(&[("path", "x".repeat(5000).as_bytes())])
            .file("f", "")
            .bad()
            .contains("too long")
    );
    // Deeper and deeper through links.
    let step = "d/".repeat(300);
    let layer = Layer::default()
        .pax(&[("path", step.as_bytes())])
        .dir("x")
        .pax(&[("linkpath", step.as_bytes())])
        .symlink("l", "x")
        .pax(&[("path", format!("l/{step}").as_bytes())])
        .dir("x");
    assert!(layer.bad().contains("nested too deeply"));
}

#[test]
fn damaged_tars_are_errors() {
    let whole = Layer::default().file("f", &"x".repeat(2000)).bytes();
    let run = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        unpack(bytes, dir.path(), &UnpackLimits::default()).map(|_| ())
    };
    assert!(run(&whole).is_ok());
    assert!(run(b"").is_ok());
    assert!(matches!(run(&whole[..1000]), Err(UnpackError::Tar { .. })));
    assert!(matches!(run(&whole[..300]), Err(UnpackError::Tar { .. })));
    let mut bent = whole.clone();
    bent[0] ^= 1;
    assert!(matches!(run(&bent), Err(UnpackError::Tar { .. })));
    assert!(run(&[b'x'; 4096]).is_err());
    // A PAX record of a gigabyte is not read.
    let mut header = Header::new_gnu();
    header.set_path("pax").unwrap();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(1 << 30);
    header.set_mode(0);
    header.set_cksum();
    assert!(run(header.as_bytes()).unwrap_err().to_string().contains("extension record"));
    // Neither are many small ones, which would be kept together until an entry comes.
    let value = vec![b'x'; 400 << 10];
    let names = ["SCHILY.xattr.user.a", "SCHILY.xattr.user.b", "SCHILY.xattr.user.c"];
    let many = names.iter().fold(Layer::default(), |layer, name| layer.pax(&[(name, &value)]));
    assert!(many.file("f", "").bad().contains("extension records"));
    let empty = (0..3000).fold(Layer::default(), |l, _| l.entry("p", EntryType::XHeader, "", 0, b""));
    assert!(empty.file("f", "").bad().contains("extension records"));
    assert!(
        Layer::default()
            .entry("p", EntryType::XHeader, "", 0, b"9999 path=x\n")
            .file("f", "")
            .bad()
            .contains("PAX")
    );
}

#[test]
fn old_gnu_sparse_files() {
    let mut header = Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(1024);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 20);
    for (i, (offset, length)) in [(4096u64, 512u64), (1 << 19, 512)].into_iter().enumerate() {
        gnu.sparse[i].set_offset(offset);
        gnu.sparse[i].set_length(length);
    }
    header.set_cksum();
    let mut layer = Layer(header.as_bytes().to_vec());
    layer.0.extend_from_slice(&[b'a'; 512]);
    layer.0.extend_from_slice(&[b'b'; 512]);
    let (_d, fs, _) = layer.file("after", "x").good();
    let content = fs::read(fs.join("sparse")).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert_eq!((content[4095], content[4096], content[4608], content[1 << 19]), (0, b'a', 0, b'b'));
    assert_eq!(read(fs.join("after")), "x");
}

#[test]
fn undescribed_directories_look_like_the_ones_below() {
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("tmp/x")).unwrap();
    fs::set_permissions(lower.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(lower.path().join("tmp/x"), Some(7), Some(8)).unwrap();
    let (_d, fs, unpacked) = Layer::default().file("tmp/x/f", "").good();
    assert_eq!(fs::metadata(fs.join("tmp")).unwrap().mode() & 0o7777, 0o755);
    parents::complete(&fs, &[lower.path().to_path_buf()], unpacked, &UnpackLimits::default()).unwrap();
    assert_eq!(fs::metadata(fs.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(fs.join("tmp/x")).unwrap().uid(), 7);
}

#[test]
fn files_below_a_linked_directory_of_a_lower_layer_go_where_it_leads() {
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("usr/bin")).unwrap();
    symlink("usr/bin", lower.path().join("bin")).unwrap();
    let (_d, fs, unpacked) = Layer::default().file("bin/sub/tool", "x").file("usr/bin/other", "y").good();
    parents::complete(&fs, &[lower.path().to_path_buf()], unpacked, &UnpackLimits::default()).unwrap();
    assert_eq!(read(fs.join("usr/bin/sub/tool")), "x");
    assert_eq!(read(fs.join("usr/bin/other")), "y");
    assert!(fs::symlink_metadata(fs.join("bin")).is_err(), "the lower layer's link must show");
    // Described, it is meant to replace the link.
    let (_d, fs, unpacked) = Layer::default().dir("bin").file("bin/tool", "x").good();
    parents::complete(&fs, &[lower.path().to_path_buf()], unpacked, &UnpackLimits::default()).unwrap();
    assert_eq!(read(fs.join("bin/tool")), "x");
}

#[test]
fn hard_links_to_lower_layers_are_copies() {
    let (top, bottom) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(bottom.path().join("d")).unwrap();
    fs::write(bottom.path().join("d/f"), "below").unwrap();
    fs::set_permissions(bottom.path().join("d/f"), fs::Permissions::from_mode(0o4711)).unwrap();
    let below = [top.path().to_path_buf(), bottom.path().to_path_buf()];
    let (_d, fs, unpacked) = Layer::default().link("l", "d/f").good();
    parents::complete(&fs, &below, unpacked, &UnpackLimits::default()).unwrap();
    assert_eq!(read(fs.join("l")), "below");
    assert_eq!(fs::metadata(fs.join("l")).unwrap().mode() & 0o7777, 0o4711);
    // Hidden by a layer in between: not there.
    fs::create_dir(top.path().join("d")).unwrap();
    rustix::fs::setxattr(
        top.path().join("d"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let (_d, fs, unpacked) = Layer::default().link("l", "d/f").good();
    assert!(parents::complete(&fs, &below, unpacked, &UnpackLimits::default()).is_err());
}

#[test]
fn late_hard_links_to_one_file_are_links_to_one_copy() {
    let lower = tempfile::tempdir().unwrap();
    fs::write(lower.path().join("file"), vec![7; 100_000]).unwrap();
    symlink("file", lower.path().join("link")).unwrap();
    let (_d, own, unpacked) = Layer::default()
        .link("a", "file")
        // To a link that waits for its file itself, in a directory of its own, and once more.
        .link("b", "a")
        .link("d/c", "b")
        .link("e", "./d/../d/c")
        .link("again", "file")
        .link("l1", "link")
        .link("l2", "l1")
        .good();
    let before = unpacked.bytes;
    let after =
        parents::complete(&own, &[lower.path().to_path_buf()], unpacked, &UnpackLimits::default()).unwrap();
    let inode = |name: &str| fs::symlink_metadata(own.join(name)).unwrap().ino();
    for name in ["b", "d/c", "e", "again"] {
        assert_eq!(inode(name), inode("a"), "{name}");
    }
    assert_eq!(fs::metadata(own.join("a")).unwrap().nlink(), 5);
    assert!(after - before < 200_000, "{}", after - before);
    assert_eq!((inode("l1"), fs::read_link(own.join("l1")).unwrap()), (inode("l2"), "file".into()));
    // Links that wait for each other wait in vain.
    let (_d, _, result) = over(&lower, Layer::default().link("x", "y").link("y", "x"));
    assert!(matches!(result, Err(UnpackError::LinkTarget { .. })), "{result:?}");
}

#[test]
fn copies_of_lower_files_are_bounded_and_keep_their_holes() {
    let lower = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::write(lower.path().join(name), vec![1; 300_000]).unwrap();
    }
    let sparse = fs::File::create(lower.path().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (1 << 39) + 5).unwrap();
    let below = [lower.path().to_path_buf()];
    let limits = UnpackLimits { max_bytes: 500_000, ..UnpackLimits::default() };
    let (_d, own, unpacked) = Layer::default().link("a", "one").link("s", "sparse").good();
    parents::complete(&own, &below, unpacked, &limits).unwrap();
    let copy = fs::metadata(own.join("s")).unwrap();
    assert!(copy.len() == 1 << 40 && copy.blocks() < 1000, "{} blocks", copy.blocks());
    let mut text = [0; 3];
    let copy = fs::File::open(own.join("s")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut text, (1 << 39) + 5).unwrap();
    assert_eq!(&text, b"end");
    let (_d, own, unpacked) = Layer::default().link("a", "one").link("b", "two").good();
    let error = parents::complete(&own, &below, unpacked, &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { limit: 500_000 }), "{error}");
}

#[test]
fn names_that_are_remembered_are_bounded() {
    let limits = UnpackLimits { max_names: 10_000, ..UnpackLimits::default() };
    let long = format!("{}/x", "n".repeat(90));
    let with = |entry: fn(Layer, &str, &str) -> Layer| {
        let layer = (0..200).fold(Layer::default(), |layer, i| entry(layer, &format!("{i}"), &long));
        let dir = tempfile::tempdir().unwrap();
        unpack(&layer.bytes()[..], dir.path(), &limits).unwrap_err()
    };
    for error in [
        with(|layer, name, long| layer.link(name, long)),
        with(|layer, name, long| layer.dir(&format!("{}{name}", &long[..80]))),
        with(|layer, name, long| layer.file(&format!("{}{name}/x", &long[..80]), "")),
    ] {
        assert!(matches!(error, UnpackError::TooManyNames { limit: 10_000 }), "{error}");
    }
}

/// A layer over `lower`, completed; what it may not reach is at `outside`.
fn over(lower: &TempDir, layer: Layer) -> (TempDir, PathBuf, Result<(), UnpackError>) {
    let (d, fs, unpacked) = layer.good();
    let result = parents::complete(&fs, &[lower.path().to_path_buf()], unpacked, &UnpackLimits::default());
    (d, fs, result.map(drop))
}

#[test]
fn a_late_hard_link_does_not_go_through_a_link_of_its_own_layer() {
    let (lower, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = outside.path().to_str().unwrap();
    fs::write(lower.path().join("payload"), "evil").unwrap();
    // The directory of the link is replaced by a link to the host's.
    let (_d, own, result) = over(&lower, Layer::default().link("d/f", "payload").symlink("d", out));
    result.unwrap();
    assert!(fs::symlink_metadata(own.join("d")).unwrap().is_symlink());
    // Deeper, and with a file of the host's in its place.
    fs::create_dir(outside.path().join("e")).unwrap();
    fs::write(outside.path().join("e/f"), "the host's").unwrap();
    let (_d, _, result) = over(&lower, Layer::default().link("d/e/f", "payload").symlink("d", out));
    result.unwrap();
    assert_eq!(read(outside.path().join("e/f")), "the host's");
    // The name itself is a link by now: that one stays, its target is not written to.
    let file = outside.path().join("file");
    let (_d, own, result) =
        over(&lower, Layer::default().link("f", "payload").symlink("f", file.to_str().unwrap()));
    result.unwrap();
    assert!(fs::symlink_metadata(own.join("f")).unwrap().is_symlink());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn undescribed_directories_are_not_looked_for_behind_links_of_their_own_layer() {
    let (lower, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = outside.path().to_str().unwrap();
    fs::create_dir_all(lower.path().join("d/x")).unwrap();
    std::os::unix::fs::chown(lower.path().join("d/x"), Some(7), Some(8)).unwrap();
    symlink("x", lower.path().join("d/y")).unwrap();
    fs::create_dir(outside.path().join("x")).unwrap();
    fs::create_dir(outside.path().join("y")).unwrap();
    fs::write(outside.path().join("y/file"), "the host's").unwrap();
    let before = fs::metadata(outside.path().join("x")).unwrap().uid();
    let (_d, _, result) =
        over(&lower, Layer::default().file("d/x/f", "").file("d/y/f", "").symlink("d", out));
    result.unwrap();
    assert_eq!(fs::metadata(outside.path().join("x")).unwrap().uid(), before);
    assert_eq!(read(outside.path().join("y/file")), "the host's");
    // Where a lower layer's link leads, the layer has put a link out of it.
    fs::create_dir_all(lower.path().join("way/x")).unwrap();
    symlink("way/x", lower.path().join("a")).unwrap();
    let (_d, _, result) = over(&lower, Layer::default().file("a/evil", "").symlink("way", out));
    assert!(matches!(result, Err(UnpackError::Io { .. })), "{result:?}");
    assert_eq!(fs::read_dir(outside.path().join("x")).unwrap().count(), 0);
}

#[test]
fn the_last_of_several_entries_counts_with_late_hard_links_too() {
    let lower = tempfile::tempdir().unwrap();
    fs::write(lower.path().join("one"), "1").unwrap();
    fs::write(lower.path().join("two"), "2").unwrap();
    fs::create_dir_all(lower.path().join("usr/bin")).unwrap();
    symlink("usr/bin", lower.path().join("bin")).unwrap();
    let (_d, own, result) = over(
        &lower,
        Layer::default()
            .file("a", "old")
            .link("a", "one")
            .link("b", "one")
            .link("b", "two")
            .link("c", "one")
            .file("c", "new")
            .link("d", "one")
            .file(".wh.d", "")
            .file("bin/tool", "x")
            .link("bin/linked", "two"),
    );
    result.unwrap();
    let at = |name: &str| read(own.join(name));
    assert_eq!((at("a"), at("b"), at("c"), at("d")), ("1".into(), "2".into(), "new".into(), "1".into()));
    assert_eq!((at("usr/bin/tool"), at("usr/bin/linked")), ("x".into(), "2".into()));
}

proptest::proptest! {
    #[test]
    fn garbage_never_panics_and_never_leaves(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000)) {
        let outer = tempfile::tempdir().unwrap();
        let fs = outer.path().join("fs");
        fs::create_dir(&fs).unwrap();
        let _ = unpack(&bytes[..], &fs, &UnpackLimits::default());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    #[test]
    fn strange_names_stay_inside(names in proptest::collection::vec("(\\.\\./|/|\\./|a/|b|l/|\\.wh\\.a){1,6}", 1..8)) {
        let outer = tempfile::tempdir().unwrap();
        let fs = outer.path().join("x/y/fs");
        fs::create_dir_all(&fs).unwrap();
        let layer = names.iter().fold(Layer::default().symlink("l", "../../.."), |l, name| l.file(name, "x"));
        let _ = unpack(&layer.bytes()[..], &fs, &UnpackLimits::default());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(outer.path().join("x")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(outer.path().join("x/y")).unwrap().count(), 1);
    }
}

//! Layers that want more than their image: devices, links out of it, other layers' files, all of the disk.

use serde_json::json;
use tar::EntryType;

use crate::fixture::{
    Layer, Node, Registry, SmallDisk, TestImage, busybox_layer, eventually, tar_of, tar_with,
};

fn pod(name: &str, image: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{image}', command: [sh, -c, '{script}']}}\n---\n"
    )
}

#[test]
fn devices_links_and_whiteouts_reach_only_their_own_image() {
    let registry = Registry::start();
    let base = busybox_layer();
    let mark = format!("planted-{}", std::process::id());
    // Devices, and an absolute link through which the same layer and the next one write.
    let mut second = tar_with(&[
        ("zero", EntryType::Char, "", (1, 5)),
        ("memory", EntryType::Char, "", (1, 1)),
        ("disk", EntryType::Block, "", (8, 0)),
        ("abs", EntryType::Symlink, "/etc", (0, 0)),
        ("up", EntryType::Symlink, "../../../../../etc", (0, 0)),
    ]);
    // Two tars in one, without the end of the first.
    second.truncate(second.len() - 1024);
    second.extend(tar_of(&[(&format!("abs/{mark}-1"), b"one\n"), (&format!("up/{mark}-2"), b"two\n")]));
    let third = tar_of(&[
        (&format!("abs/{mark}-3"), b"three\n"),
        // Files of lower layers go away, for this image.
        ("etc/.wh.group", b""),
        ("root/.wh..wh..opq", b""),
        // What never was there, here or above, can go away too.
        ("etc/.wh.nothing", b""),
        ("../../.wh.tmp", b""),
    ]);
    let layers = [Layer::gzip(&base), Layer::plain(&second), Layer::gzip(&third)];
    let hostile = registry.push("hostile:1", &TestImage::of(&layers, &json!({})));
    let plain = registry.push("plain:1", &TestImage::busybox(&json!({})));

    let node = Node::start();
    let script = format!(
        "ls -l /abs; cat /etc/{mark}-1 /etc/{mark}-2 /etc/{mark}-3; test -e /etc/group || echo no group; test -e /tmp || echo no tmp; head -c 2 /zero > /dev/null && echo zero; cat /memory /disk; test -e /etc/passwd && echo end"
    );
    node.apply(&pod("hostile", &hostile, &script));
    node.apply(&pod("plain", &plain, &format!("cat /etc/group; ls -d /tmp; ls /zero /abs /etc/{mark}-1")));
    for pod in ["pod/hostile", "pod/plain"] {
        node.wait_for(
            pod,
            "{.status.containerStatuses[0].state.terminated.reason}",
            if pod == "pod/plain" { "Error" } else { "Completed" },
        );
    }
    let log = node.kubectl(&["logs", "hostile"]).ok();
    for line in ["one", "two", "three", "no group", "no tmp", "zero", "end"] {
        assert!(log.lines().any(|have| have == line), "{line}: {log}");
    }
    // The container's device rules decide, not who made the node.
    for device in ["memory", "disk"] {
        let refused = format!("can't open '/{device}': Operation not permitted");
        assert!(log.contains(&refused), "{refused}: {log}");
    }
    let log = node.kubectl(&["logs", "plain"]).ok();
    assert!(log.starts_with("root:x:0:\nnogroup:x:65534:\n/tmp\n"), "{log}");
    assert_eq!(log.matches("No such file or directory").count(), 3, "{log}");
    for number in 1..=3 {
        assert!(!std::path::Path::new("/etc").join(format!("{mark}-{number}")).exists());
    }
    assert!(std::path::Path::new("/tmp").exists());
}

#[test]
fn a_bomb_and_a_million_files_end_with_the_disk_and_give_it_back() {
    let registry = Registry::start();
    // Half a megabyte that becomes a hundred.
    let zeros = 100 << 20;
    let head = header("bomb", zeros);
    let body = (0..zeros >> 20).map(|_| vec![0; 1 << 20]);
    let bomb = Layer::gzip_from(std::iter::once(head).chain(body).chain([vec![0; 1024]]));
    let bomb = registry.push("bomb:1", &TestImage::of(&[bomb], &json!({})));
    let empty = header("0000000", 0);
    let files = (0..1000).map(|thousand| {
        let mut piece = Vec::with_capacity(1000 * empty.len());
        (0..1000).for_each(|file| piece.extend_from_slice(&renamed(&empty, thousand * 1000 + file)));
        piece
    });
    let many = Layer::gzip_from(files.chain([vec![0; 1024]]));
    let many = registry.push("many:1", &TestImage::of(&[many], &json!({})));
    let small = registry.push("small:1", &TestImage::busybox(&json!({})));

    let mut node = Node::prepare(&["--stop-pods=true"]);
    // Beside the built-in image, which is as large as the binary, there is room for 32 MiB.
    let room = std::fs::metadata(env!("CARGO_BIN_EXE_sampan")).unwrap().len() + (32 << 20);
    let disk = SmallDisk::mount(&node.path("data/runtime/snapshots"), &format!("size={room},nr_inodes=2000"));
    node.launch();
    let before = disk.used();
    for (name, image) in [("bomb", &bomb), ("many", &many)] {
        node.apply(&pod(name, image, "true"));
        let waiting = "{.status.containerStatuses[0].state.waiting";
        node.wait_for(&format!("pod/{name}"), &format!("{waiting}.reason}}"), "ImagePullBackOff");
        let message = node.field(&format!("pod/{name}"), &format!("{waiting}.message}}"));
        assert!(message.contains("no space left on the image file system"), "{message}");
        node.kubectl(&["delete", "pod", name]).ok();
        eventually("the space", || (disk.used() < before + (1 << 20)).then_some(()));
    }
    node.apply(&pod("small", &small, "echo fits"));
    node.wait_for("pod/small", "{.status.phase}", "Succeeded");
    assert_eq!(node.kubectl(&["logs", "small"]).ok(), "fits\n");
    // The mount is the test's, not the node's.
    node.kubectl(&["delete", "pod", "small"]).ok();
    assert_eq!(node.terminate(), 0, "{}", node.log());
    drop(disk);
}

/// The header of a regular file.
fn header(path: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_path(path).unwrap();
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The header of `0000000` under another number: made anew, a million of them would take half a minute.
fn renamed(zero: &[u8], number: u32) -> Vec<u8> {
    let (mut header, name) = (zero.to_vec(), format!("{number:07}"));
    header[..7].copy_from_slice(name.as_bytes());
    let digits: u32 = name.bytes().map(|digit| u32::from(digit - b'0')).sum();
    let before = u32::from_str_radix(std::str::from_utf8(&zero[148..155]).unwrap(), 8).unwrap();
    header[148..155].copy_from_slice(format!("{:07o}", before + digits).as_bytes());
    header
}

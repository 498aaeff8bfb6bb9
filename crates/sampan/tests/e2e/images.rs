//! Images from a real registry, with and without a server.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fixture::{Layer, Node, Registry, Said, TestImage, busybox_layer, eventually, tar_of};

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{image}', command: [cat, /which, /second]}}\n---\n"
    )
}

#[test]
fn tags_digests_codecs_and_platforms() {
    let registry = Registry::start();
    let layers = |which: &[u8]| {
        vec![
            Layer::plain(&busybox_layer()),
            Layer::gzip(&tar_of(&[("which", which)])),
            Layer::zstd(&tar_of(&[("second", b"zstd\n")])),
        ]
    };
    let (ours, theirs) = (layers(b"ours\n"), layers(b"theirs\n"));
    let (ours_name, theirs_name) =
        if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let image = TestImage::index(&[(theirs_name, &theirs), (ours_name, &ours)], &json!({}));
    let tag = registry.push("multi/app:1", &image);
    let foreign = TestImage::index(&[(theirs_name, &theirs)], &json!({}));
    let foreign = registry.push("multi/foreign:1", &foreign);
    let node = Node::start();
    // By tag, and by the digest that the status tells.
    node.apply(&pod("tag", &tag));
    node.wait_for("pod/tag", "{.status.phase}", "Succeeded");
    assert_eq!(node.kubectl(&["logs", "tag"]).ok(), "ours\nzstd\n");
    let id = node.field("pod/tag", "{.status.containerStatuses[0].imageID}");
    let repository = registry.name("multi/app");
    assert!(id.starts_with(&format!("{repository}@sha256:")), "{id}");
    assert_eq!(node.field("pod/tag", "{.status.containerStatuses[0].image}"), tag);
    node.apply(&format!("{}{}", pod("digest", &id), pod("foreign", &foreign)));
    node.wait_for("pod/digest", "{.status.phase}", "Succeeded");
    assert_eq!(node.field("pod/digest", "{.status.containerStatuses[0].imageID}"), id);
    node.wait_for_event("tag", "Pulling", &format!("Normal Pulling image \"{tag}\""));
    let pulled = node.events("tag", "Pulled");
    assert!(pulled[0].starts_with(&format!("Normal Successfully pulled image \"{tag}\" in ")), "{pulled:?}");
    // Another architecture's image only.
    node.wait_for("pod/foreign", "{.status.containerStatuses[0].state.waiting.reason}", "ImagePullBackOff");
    let message = node.field("pod/foreign", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(message.contains(ours_name), "{message}");
    // The node tells its images.
    eventually("the node's images", || {
        node.field("nodes", "{.items[0].status.images[*].names}").contains(&repository).then_some(())
    });
}

#[test]
fn the_image_command_with_a_server_and_without() {
    let registry = Registry::start();
    let config = json!({"Env": ["A=b"], "Cmd": ["sh"], "User": "65534"});
    let image = TestImage::busybox(&config);
    let (name, second) = (registry.push("cli/app:1", &image), registry.push("cli/app:2", &image));
    let mut node = Node::start();
    let round = |node: &Node| {
        let pulled = node.sampan(&["image", "pull", &name]).ok();
        let list = node.sampan(&["image", "ls"]).ok();
        let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..4], ["IMAGE", "TAG", "IMAGE", "ID"]);
        let row = rows.iter().find(|row| row[0].ends_with("cli/app")).unwrap_or_else(|| panic!("{list}"));
        assert_eq!(row[1], "1");
        let inspected: Value = serde_json::from_str(&node.sampan(&["image", "inspect", &name]).ok()).unwrap();
        assert_eq!(inspected[0]["repoTags"], json!([name]));
        assert!(inspected.to_string().contains("A=b"), "{inspected}");
        assert!(
            pulled.contains(inspected[0]["id"].as_str().unwrap()) || pulled.contains("sha256:"),
            "{pulled}"
        );
        // One name of two goes alone.
        node.sampan(&["image", "pull", &second]).ok();
        assert_eq!(node.sampan(&["image", "rm", &second]).ok(), format!("removed {second}\n"));
        assert!(node.sampan(&["image", "ls"]).ok().contains("cli/app"));
        // Out to a file, away, and in again.
        for format in ["oci", "docker"] {
            let file = node.path("image.tar");
            node.sampan(&["image", "save", &name, "-o", file.to_str().unwrap(), "--format", format]).ok();
            assert_eq!(node.sampan(&["image", "rm", &name]).ok(), format!("removed {name}\n"));
            assert!(!node.sampan(&["image", "ls"]).ok().contains("cli/app"));
            let loaded = node.sampan(&["image", "load", file.to_str().unwrap()]).ok();
            assert!(loaded.contains(&name), "{format}: {loaded}");
            assert!(node.sampan(&["image", "ls"]).ok().contains("cli/app"), "{format}");
        }
        // The same through pipes.
        let save = ["image", "save", &name, "--format", "docker", "-o", "-"];
        let saved = node.sampan_command(&save).output().unwrap();
        assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
        node.sampan(&["image", "rm", &name]).ok();
        let mut load = node.sampan_command(&["image", "load", "-"]);
        let mut loading = load.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut loading.stdin.take().unwrap(), &saved.stdout).unwrap();
        let loaded = Said::from(loading.wait_with_output().unwrap()).ok();
        assert!(loaded.contains(&name), "{loaded}");
        let pruned = node.sampan(&["image", "prune"]).ok();
        assert!(pruned.contains("removed"), "{pruned}");
        assert!(!node.sampan(&["image", "ls"]).ok().contains("cli/app"));
        let said = node.sampan(&["image", "inspect", &name]).fails();
        assert!(said.contains(&format!("no image `{name}`")), "{said}");
        assert!(node.sampan(&["image", "rm", &name]).fails().contains("no image"));
        let said = node.sampan(&["image", "pull", &registry.name("cli/none:1")]).fails();
        assert!(said.contains("404 Not Found"), "{said}");
        let file = node.path("garbage.tar");
        std::fs::write(&file, [9; 4096]).unwrap();
        assert!(node.sampan(&["image", "load", file.to_str().unwrap()]).fails().contains("image archive"));
    };
    round(&node);
    // What a container uses is not pruned.
    node.apply(&pod("user", &name).replace("[cat, /which, /second]", "[sleep, \"600\"]"));
    node.wait_for("pod/user", "{.status.phase}", "Running");
    node.sampan(&["image", "prune"]).ok();
    assert!(node.sampan(&["image", "ls"]).ok().contains("cli/app"));
    node.kubectl(&["delete", "pod", "user"]).ok();
    assert_eq!(node.terminate(), 0);
    round(&node);
    // The built-in image is always there.
    assert!(node.sampan(&["image", "ls"]).ok().contains("sampan.local/toolbox"));
}

#[test]
fn a_command_that_fails_halfway_leaves_no_socket_behind() {
    let mut node = Node::start();
    node.terminate();
    // A directory may be an OCI layout; this one is none.
    let directory = node.path("archive.tar");
    std::fs::create_dir(&directory).unwrap();
    let said = node.sampan(&["image", "load", directory.to_str().unwrap()]).fails();
    assert!(
        said.contains(&format!("{} is a directory without an index.json", directory.display())),
        "{said}"
    );
    // What can be opened and not read.
    let said = node.sampan(&["image", "load", "/proc/self/mem"]).fails();
    assert!(said.contains("reading /proc/self/mem: "), "{said}");
    node.sampan(&["image", "inspect", "no/such:image"]).fails();
    let left: Vec<_> =
        std::fs::read_dir(node.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("images-")), "{left:?}");
    // A directory that the command makes is as private as a server's: there may be setuid programs in images.
    let (run, fresh) = (node.path("run"), node.path("fresh"));
    let dirs = ["--run-dir", run.to_str().unwrap(), "--data-dir", fresh.to_str().unwrap()];
    node.sampan_alone(&[&["image", "ls"][..], &dirs].concat()).ok();
    assert_eq!(std::fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_tag_goes_without_the_others_and_commands_take_turns() {
    let node = Node::prepare(&[]);
    let archives = ["one", "two"].map(|name| {
        let image = TestImage::of(&[Layer::gzip(&tar_of(&[(name, name.as_bytes())]))], &json!({}));
        let file = node.path(&format!("{name}.tar"));
        let packed = std::process::Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--quiet"])
            .arg(format!("oci:{}:latest", image.layout().display()))
            .arg(format!("docker-archive:{}:registry.example/{name}:1", file.display()))
            .arg("--additional-tag")
            .arg(format!("registry.example/{name}:2"))
            .output()
            .unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        file
    });
    // Both at once, without a server.
    let load = |file: &std::path::PathBuf| {
        let mut command = node.sampan_command(&["image", "load", file.to_str().unwrap()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for loading in archives.each_ref().map(load) {
        Said::from(loading.wait_with_output().unwrap()).ok();
    }
    let names = |list: String| -> Vec<String> {
        let rows =
            list.lines().skip(1).map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(":"));
        rows.filter(|name| name.starts_with("registry.example/")).collect()
    };
    let list = || names(node.sampan(&["image", "ls"]).ok());
    let (one, two) = ("registry.example/one", "registry.example/two");
    assert_eq!(list(), [format!("{one}:1"), format!("{one}:2"), format!("{two}:1"), format!("{two}:2")]);
    let removed = node.sampan(&["image", "rm", &format!("{one}:1")]).ok();
    assert_eq!(removed, format!("removed {one}:1\n"));
    assert_eq!(list(), [format!("{one}:2"), format!("{two}:1"), format!("{two}:2")]);
    // By its id with all names, and those are told.
    let inspected = node.sampan(&["image", "inspect", &format!("{two}:1")]).ok();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let id = inspected[0]["id"].as_str().unwrap();
    let removed = node.sampan(&["image", "rm", id]).ok();
    assert_eq!(removed, format!("removed {id}\nremoved {two}:1\nremoved {two}:2\n"));
    assert_eq!(list(), [format!("{one}:2")]);
}

//! `sampan run`: the main job without a server at hand.

use std::{fs, process::Command};

use serde_json::json;

use crate::fixture::{
    Layer, Line, Node, Registry, Said, Terminal, TestImage, busybox_layer, eventually, noise, tar_of,
};

/// Runs with the directories, bridge and ranges of a node that is not started.
struct Run {
    node: Node,
}

impl Run {
    fn new() -> Self {
        let node = Node::prepare(&["--stop-pods=true"]);
        let config: Vec<String> =
            ["log-dir", "bridge", "cgroup-root", "cluster-cidr", "service-cidr", "node-name"]
                .iter()
                .map(|key| format!("{key}: {}\n", node.option(&format!("--{key}"))))
                .collect();
        fs::write(node.path("config.yaml"), config.concat()).unwrap();
        Self { node }
    }

    fn run(&self, manifest: &str, options: &[&str]) -> Said {
        self.command(manifest, options).output().unwrap().into()
    }

    fn command(&self, manifest: &str, options: &[&str]) -> Command {
        let file = self.node.path("pod.yaml");
        fs::write(&file, manifest).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
        command.arg("run").arg("--config").arg(self.node.path("config.yaml")).args(options);
        command.arg(if options.is_empty() { file.as_os_str() } else { "-".as_ref() });
        command.arg("--data-dir").arg(self.node.path("data")).arg("--run-dir").arg(self.node.path("run"));
        command.stdin(fs::File::open(&file).unwrap());
        command
    }
}

fn pod(name: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: c\n    image: sampan.local/toolbox\n    command: {command}\n"
    )
}

#[test]
fn a_pod_runs_prints_and_is_gone_and_its_exit_code_is_the_runs() {
    let run = Run::new();
    let said = run.run(&pod("hello", "[echo, hello there]"), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out, "hello/c | hello there\n");
    assert!(said.err.contains("pod/hello created") && said.err.contains("pod/hello deleted"), "{}", said.err);
    let said = run.run(&pod("bad", "[\"false\"]"), &["--no-progress"]);
    assert_eq!(said.code, 1, "{said:?}");
    let said = run.run(&pod("missing", "[no-such-command]"), &["--no-progress"]);
    assert_eq!(said.code, 128, "{said:?}");
    assert!(said.err.contains("no-such-command"), "{}", said.err);
}

#[test]
fn in_a_terminal_a_bar_per_layer_shows_the_pull() {
    let registry = Registry::start();
    let large = Layer::plain(&tar_of(&[("large", &noise(4 << 20))]));
    let digest = large.digest().trim_start_matches("sha256:")[..12].to_owned();
    let image = TestImage::of(&[Layer::gzip(&busybox_layer()), large], &json!({}));
    let name = registry.push("bars/app:1", &image);
    let line = Line::slow_to(&registry.host());
    let run = Run::new();
    let manifest = pod("bars", "[echo, it ran]")
        .replace("sampan.local/toolbox", &name.replace(&registry.host(), &line.host()));
    let terminal = Terminal::start(&mut run.command(&manifest, &[]));
    eventually("the bar", || {
        let shown = terminal.shown();
        (shown.contains(&digest) && shown.contains("downloading")).then_some(())
    });
    line.open();
    let said = terminal.end();
    assert_eq!(said.code, 0, "{}", said.out);
    // In a terminal the pod's name has a colour.
    assert!(said.out.contains("bars/c |") && said.out.contains("it ran"), "{}", said.out);
}

#[test]
fn a_broken_document_starts_nothing() {
    let run = Run::new();
    let good = pod("ok", "[echo, x]");
    for (broken, wanted) in [
        ("apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n", "kind `Pood` of `v1` is unknown"),
        (
            "apiVersion: v1\nkind: Deployment\nmetadata: {name: x}\n",
            "kind `Deployment` is not in `v1`, but in apps/v1",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x\n", "document 2"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nmetadata: {name: y}\n", "duplicate"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: none}\n",
            "cannot unmarshal string",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {colour: red}\n",
            "unknown field \"spec.colour\"",
        ),
        ("kind: Pod\nmetadata: {name: x}\n", "apiVersion not set"),
    ] {
        let said = run.run(&format!("{good}---\n{broken}"), &[]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(wanted), "{wanted}: {}", said.err);
        assert!(!said.err.contains("created"), "{}", said.err);
        assert!(!run.node.path("data").exists(), "no server was started");
    }
}

#[test]
fn an_object_that_the_api_refuses_takes_the_others_along() {
    let run = Run::new();
    let broken = pod("b", "[echo]").replace("restartPolicy: Never", "restartPolicy: Sometimes");
    let said = run.run(&format!("{}---\n{broken}", pod("ok", "[echo, shown]")), &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("restartPolicy: Unsupported value: \"Sometimes\""), "{}", said.err);
    assert!(said.err.contains("pod/ok deleted"), "{}", said.err);
    assert!(!said.out.contains("shown"), "nothing is followed: {}", said.out);
}

//! `sampan run`: the main job without a server at hand.

use std::{fs, process::Command};

use crate::fixture::Said;

fn run(manifest: &str, stdin: bool) -> Said {
    let dir = tempfile::Builder::new().prefix("smpt-run-").tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    fs::write(&file, manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    command.arg("run").arg(if stdin { "-".as_ref() } else { file.as_os_str() });
    command.arg("--data-dir").arg(dir.path().join("data")).arg("--run-dir").arg(dir.path().join("run"));
    command.stdin(fs::File::open(&file).unwrap());
    command.output().unwrap().into()
}

fn pod(name: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: c\n    image: sampan.local/toolbox\n    command: {command}\n"
    )
}

#[test]
fn a_pod_runs_prints_and_is_gone() {
    let said = run(&pod("hello", "[echo, hello there]"), false);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out, "hello/c | hello there\n");
    assert!(said.err.contains("pod/hello created") && said.err.contains("pod/hello deleted"), "{}", said.err);
}

#[test]
fn the_exit_code_is_the_containers() {
    assert_eq!(run(&pod("bad", "[\"false\"]"), true).code, 1);
}

#[test]
fn a_broken_document_starts_nothing() {
    let said = run(
        &format!("{}---\napiVersion: v1\nkind: Pood\nmetadata: {{name: x}}\n", pod("ok", "[echo, x]")),
        false,
    );
    assert_eq!(said.code, 1);
    assert!(said.err.contains("kind `Pood`"), "{}", said.err);
    assert!(!said.err.contains("created"), "{}", said.err);
}

//! Commands that do not exist, containers that are gone, and what is said to who asks for them.

use serde_json::json;

use crate::fixture::{Node, Registry, TestImage};

#[test]
fn pod_11_a_command_that_does_not_exist_is_a_start_error() {
    let node = Node::start();
    node.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: typo}\nspec:\n  restartPolicy: Never\n  containers:\n  - {name: c, image: sampan.local/toolbox, command: [no-such-command]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: again}\nspec:\n  containers:\n  - {name: c, image: sampan.local/toolbox, command: [/no/such/command]}\n");
    node.wait_for("pod/typo", "{.status.phase}", "Failed");
    let state = "{.status.containerStatuses[0].state.terminated";
    assert_eq!(node.field("pod/typo", &format!("{state}.reason}}")), "StartError");
    assert_eq!(node.field("pod/typo", &format!("{state}.exitCode}}")), "128");
    let message = node.field("pod/typo", &format!("{state}.message}}"));
    assert!(message.contains("exec: \"no-such-command\": executable file not found in $PATH"), "{message}");
    node.wait_for_event("typo", "Failed", &format!("Warning Error: {message}"));
    node.wait_for("pod/again", "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff");
    let message = node.field("pod/again", "{.status.containerStatuses[0].lastState.terminated.message}");
    assert!(
        message.contains("/no/such/command\": stat /no/such/command: no such file or directory"),
        "{message}"
    );
    let table = node.kubectl(&["get", "pods", "--no-headers"]).ok();
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1][..3], ["typo", "0/1", "StartError"]);
}

#[test]
fn exec_logs_and_attach_where_there_is_nothing() {
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    let node = Node::start();
    node.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: two}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: stays, image: '{image}', command: [sleep, '600']}}\n  - {{name: gone, image: '{image}', command: [sh, -c, 'echo was here; exit 3']}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: done}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: c, image: '{image}', command: ['true']}}\n"));
    node.wait_for(
        "pod/two",
        "{.status.containerStatuses[?(@.name==\"gone\")].state.terminated.exitCode}",
        "3",
    );
    node.wait_for("pod/two", "{.status.containerStatuses[?(@.name==\"stays\")].ready}", "true");
    node.wait_for("pod/done", "{.status.phase}", "Succeeded");
    for (args, wanted) in [
        (&["exec", "two", "-c", "none", "--", "true"][..], "container none is not valid for pod two"),
        (&["exec", "two", "-c", "gone", "--", "true"], "container not found (\"gone\")"),
        (&["exec", "none", "--", "true"], "Error from server (NotFound): pods \"none\" not found"),
        (
            &["exec", "done", "--", "true"],
            "cannot exec into a container in a completed pod; current phase is Succeeded",
        ),
        (&["logs", "two", "-c", "none"], "container none is not valid for pod two"),
        (
            &["logs", "two", "-c", "stays", "--previous"],
            "previous terminated container \"stays\" in pod \"two\" not found",
        ),
        (&["logs", "none"], "pods \"none\" not found"),
    ] {
        let said = node.kubectl(args).fails();
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
    // The command is missing, not the container: upstream's codes.
    let said = node.kubectl(&["exec", "two", "-c", "stays", "--", "no-such-command"]);
    assert!(said.code != 0 && said.err.contains("executable file not found in $PATH"), "{said:?}");
    let said = node.kubectl(&["exec", "two", "-c", "stays", "--", "sh", "-c", "no-such-command"]);
    assert_eq!(said.code, 127, "{said:?}");
    assert_eq!(node.kubectl(&["logs", "two", "-c", "gone"]).ok(), "was here\n");
    // Default container, and all of them.
    assert!(
        node.kubectl(&["exec", "two", "--", "true"])
            .err
            .contains("Defaulted container \"stays\" out of: stays, gone")
    );
    assert_eq!(
        node.kubectl(&["logs", "two", "--all-containers", "--prefix"]).ok(),
        "[pod/two/gone] was here\n"
    );
    // Standard input reaches the command and its end ends it.
    let mut command = node.kubectl_command(&["exec", "-i", "two", "-c", "stays", "--", "cat"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = "0123456789abcdef\n".repeat(20_000);
    let mut stdin = child.stdin.take().unwrap();
    let sent = text.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, sent.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout.len(), text.len());
    assert!(output.stdout == text.as_bytes() && output.status.success());
    // A whole directory each way.
    let file = node.path("to-copy");
    std::fs::write(&file, &text).unwrap();
    node.kubectl(&["cp", "-c", "stays", file.to_str().unwrap(), "two:/tmp/copied"]).ok();
    let back = node.path("copied-back");
    node.kubectl(&["cp", "-c", "stays", "two:/tmp/copied", back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(back).unwrap(), text);
}

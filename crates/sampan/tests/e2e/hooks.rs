//! Lifecycle hooks with real containers.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::{Node, Registry, Said, TestImage, eventually};

/// A pod of one shell container; `more` are fields of the container, indented by four.
fn pod(name: &str, image: &str, grace: u32, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: {grace}\n  containers:\n  - name: c\n    image: {image}\n    command: [sh, -c, '{script}']\n{more}"
    )
}

const FOREVER: &str = "while :; do sleep 1; done";

/// `sampan logs` with the node's kubeconfig.
fn logs(node: &Node, args: &[&str]) -> Said {
    let kubeconfig = node.path("kubeconfig");
    node.sampan(&[&["logs", "--kubeconfig", kubeconfig.to_str().unwrap()], args].concat())
}

fn image(registry: &Registry) -> String {
    registry.push("busybox:1", &TestImage::busybox(&json!({})))
}

#[test]
fn hook_18_19_the_documented_example_of_a_command_that_is_not_there() {
    let (registry, node) = (Registry::start(), Node::start());
    let hook = "    lifecycle: {postStart: {exec: {command: [badcommand]}}}\n";
    node.apply(&pod("lifecycle-demo", &image(&registry), 1, FOREVER, hook));
    eventually("the back-off", || {
        node.events("lifecycle-demo", "BackOff")
            .iter()
            .any(|event| event.contains("restarting"))
            .then_some(())
    });
    let uid = node.field("pod/lifecycle-demo", "{.metadata.uid}");
    let event = &node.events("lifecycle-demo", "FailedPostStartHook")[0];
    let wanted = format!(
        "Warning Exec lifecycle hook ([badcommand]) for Container \"c\" in Pod \"lifecycle-demo_default({uid})\" failed \
         - error: command 'badcommand' exited with 126: , message: \"OCI runtime exec failed: "
    );
    assert!(event.starts_with(&wanted), "{event}");
    assert!(event.contains("badcommand") && event.contains("executable file not found in $PATH"), "{event}");
    let described = node.kubectl(&["describe", "pod", "lifecycle-demo"]).ok();
    let described = &described[described.find("Events:").unwrap()..];
    let order =
        ["Scheduled", "Pulling", "Pulled", "Created", "Started", "FailedPostStartHook", "Killing", "BackOff"];
    for reason in order {
        assert!(described.contains(reason), "{reason} in {described}");
    }
    // An event's name ends with the nanosecond of its first time; its timestamps are whole seconds.
    let selector = "--field-selector=involvedObject.name=lifecycle-demo";
    let path = r#"jsonpath={range .items[*]}{.metadata.name} {.reason}{"\n"}{end}"#;
    let events = node.kubectl(&["get", "events", selector, "-o", path]).ok();
    let mut events: Vec<(&str, &str)> = events.lines().filter_map(|line| line.split_once(' ')).collect();
    events.sort_unstable();
    let mut reasons: Vec<&str> = Vec::new();
    for (_, reason) in events {
        if order.contains(&reason) && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    assert_eq!(reasons, order);
    // HOOK-17: the whole text is the waiting message until the back-off takes its place; the log keeps it.
    let shown = logs(&node, &["--hooks", "default/lifecycle-demo", "-c", "c"]).ok();
    assert!(shown.contains("-- postStart exec [badcommand]\n-- postStart failed after "), "{shown}");
    assert!(shown.contains("command 'badcommand' exited with 126"), "{shown}");
}

#[test]
fn hook_03_05_06_07_exec_runs_beside_the_entrypoint_in_its_container() {
    let (registry, node) = (Registry::start(), Node::start());
    let script = "echo entrypoint; while :; do sleep 1; done";
    let hook = concat!(
        "    resources: {limits: {memory: 64Mi, cpu: 500m}}\n",
        "    env: [{name: GREETING, value: hello}]\n",
        "    lifecycle:\n      postStart:\n        exec:\n          command:\n          - sh\n          - -c\n",
        "          - 'cat /proc/self/cgroup > /tmp/cgroup; (readlink /proc/self/ns/mnt; readlink /proc/self/ns/net) > /tmp/ns; ",
        "echo $GREETING $0 $#; echo careful >&2'\n",
    );
    node.apply(&pod("here", &image(&registry), 1, script, hook));
    node.wait_for("pod/here", "{.status.phase}", "Running");
    let inside = |command: &str| node.kubectl(&["exec", "here", "--", "sh", "-c", command]).ok();
    assert_eq!(inside("cat /tmp/cgroup"), inside("cat /proc/1/cgroup"), "the container's cgroup");
    assert_eq!(
        inside("cat /tmp/ns"),
        inside("readlink /proc/1/ns/mnt; readlink /proc/1/ns/net"),
        "its namespaces"
    );
    // HOOK-05: no arguments; what it printed is kept for those who ask, and is in no event.
    let shown = logs(&node, &["--hooks", "here"]).ok();
    assert!(shown.contains("\nhello sh 0\ncareful\n-- postStart succeeded after "), "{shown}");
    assert!(!node.kubectl(&["describe", "pod", "here"]).ok().contains("careful"));
    // kubectl gets the same from the API.
    let raw =
        node.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/here/log?hooks=true&tailLines=2"]);
    assert!(raw.ok().starts_with("careful\n-- postStart"));
    assert_eq!(node.kubectl(&["logs", "here"]).ok(), "entrypoint\n");
    assert_eq!(logs(&node, &["here", "-c", "c"]).ok(), "entrypoint\n");
    let error = logs(&node, &["--hooks", "nobody"]).fails();
    assert!(error.contains("pods \"nobody\" not found"), "{error}");
}

#[test]
fn hook_26_27_the_60_55_10_example_scaled_down() {
    let (registry, node) = (Registry::start(), Node::start());
    // Grace 6, hook 5, and a process that needs 10 s after SIGTERM.
    let script = "trap \"echo term; sleep 10; exit 0\" TERM; while :; do sleep 0.1; done";
    let hook = "    lifecycle: {preStop: {exec: {command: [sleep, \"5\"]}}}\n";
    let manifest = pod("slow", &image(&registry), 6, script, hook);
    // A finalizer keeps the object, so that its last status can be read.
    node.apply(&manifest.replace("{name: slow}", "{name: slow, finalizers: [example.com/hold]}"));
    node.wait_for("pod/slow", "{.status.phase}", "Running");
    let began = Instant::now();
    node.kubectl(&["delete", "pod", "slow", "--wait=false"]).ok();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.field("pod/slow", "{.status.phase}"), "Running", "HOOK-26: it still runs");
    node.wait_for("pod/slow", "{.status.phase}", "Failed");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(5_900) && took < Duration::from_secs(12), "{took:?}");
    assert_eq!(node.field("pod/slow", "{.status.containerStatuses[0].state.terminated.exitCode}"), "137");
    node.kubectl(&[
        "patch",
        "pod",
        "slow",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
    ])
    .ok();
    eventually("its end", || (node.kubectl(&["get", "pod", "slow"]).code == 1).then_some(()));
}

#[test]
fn hook_28_a_hook_that_is_cut_is_killed_with_its_children() {
    let (registry, node) = (Registry::start(), Node::start());
    let mark = node.name().to_owned();
    let hook = format!(
        "    lifecycle: {{preStop: {{exec: {{command: [sh, -c, 'sleep 987 & echo begun; sh -c \"sleep 986; echo # {mark} child\"; wait']}}}}}}\n"
    );
    // Restarted by its liveness probe: the container goes on, the hook must not.
    let probe = "    livenessProbe: {exec: {command: [test, '!', -e, /tmp/die]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 2}\n";
    node.apply(&pod(
        "cut",
        &image(&registry),
        30,
        "trap : TERM; sleep 3600 & wait",
        &format!("{hook}{probe}"),
    ));
    node.wait_for("pod/cut", "{.status.phase}", "Running");
    node.kubectl(&["exec", "cut", "--", "touch", "/tmp/die"]).ok();
    node.wait_for("pod/cut", "{.status.containerStatuses[0].restartCount}", "1");
    let events = node.events("cut", "FailedPreStopHook");
    assert!(events[0].contains("failed - error: cut after 2"), "{events:?}");
    assert!(events[0].contains("s, the grace period was over, message: \"\""), "{events:?}");
    let shown = logs(&node, &["--hooks", "cut"]).ok();
    assert!(shown.contains("\nbegun\n-- preStop failed after 2"), "what it had printed is kept: {shown}");
    assert_eq!(crate::fixture::process_of(&format!("{mark} child")), None);
}

#[test]
fn hook_32_stop_signals_of_pod_and_image() {
    let (registry, node) = (Registry::start(), Node::start());
    let plain = image(&registry);
    let quit = registry.push("quit:1", &TestImage::busybox(&json!({"StopSignal": "SIGQUIT"})));
    let script =
        "for s in TERM QUIT USR1; do trap \"echo got $s; exit 0\" $s; done; while :; do sleep 0.1; done";
    let own = "    lifecycle: {stopSignal: SIGUSR1}\n";
    for (name, image, more, signal) in
        [("plain", &plain, "", "SIGTERM"), ("image", &quit, "", "SIGQUIT"), ("own", &quit, own, "SIGUSR1")]
    {
        let manifest =
            pod(name, image, 10, script, more).replace("\nspec:\n", "\nspec:\n  os: {name: linux}\n");
        node.apply(&manifest.replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, finalizers: [example.com/hold]}}"),
        ));
        let pod = format!("pod/{name}");
        node.wait_for(&pod, "{.status.phase}", "Running");
        assert_eq!(node.field(&pod, "{.status.containerStatuses[0].stopSignal}"), signal);
        // The loop must have set its traps.
        std::thread::sleep(Duration::from_millis(300));
        let mut follow = node.kubectl_command(&["logs", "-f", name]);
        let follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
        node.kubectl(&["delete", &pod, "--wait=false"]).ok();
        node.wait_for(&pod, "{.status.phase}", "Succeeded");
        let said: Said = follow.wait_with_output().unwrap().into();
        assert_eq!(said.out, format!("got {}\n", signal.trim_start_matches("SIG")));
        let free = r#"[{"op":"remove","path":"/metadata/finalizers"}]"#;
        node.kubectl(&["patch", &pod, "--type=json", "-p", free]).ok();
    }
}

#[test]
fn hook_33_a_daemon_that_dies_in_the_middle_of_a_hook_runs_it_again() {
    let registry = Registry::start();
    let mut node = Node::start();
    let hooks = "    lifecycle:\n      postStart: {exec: {command: [sh, -c, 'echo post >> /tmp/hooks; sleep 3']}}\n      preStop: {exec: {command: [sh, -c, 'echo pre >> /tmp/hooks; cat /tmp/hooks; sleep 2']}}\n";
    node.apply(&pod("twice", &image(&registry), 30, FOREVER, hooks));
    eventually("the hook", || {
        let id = node.field("pod/twice", "{.status.containerStatuses[0].containerID}");
        (!id.is_empty()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    node.kill_9();
    node.launch();
    node.wait_for("pod/twice", "{.status.phase}", "Running");
    assert_eq!(node.kubectl(&["exec", "twice", "--", "cat", "/tmp/hooks"]).ok(), "post\npost\n");
    assert_eq!(node.field("pod/twice", "{.status.containerStatuses[0].restartCount}"), "0");
    node.kubectl(&["delete", "pod", "twice", "--wait=false"]).ok();
    std::thread::sleep(Duration::from_secs(1));
    node.kill_9();
    node.launch();
    let mut shown = String::new();
    eventually("its end", || {
        let said = logs(&node, &["--hooks", "twice"]);
        if said.code == 0 && said.out.contains("-- preStop") {
            shown = said.out;
        }
        (node.kubectl(&["get", "pod", "twice"]).code == 1).then_some(())
    });
    // The second daemon's hook got to its end; whether it was still to be read is a matter of moments.
    assert!(shown.is_empty() || shown.contains("\npost\npost\npre\npre\n"), "{shown}");
}

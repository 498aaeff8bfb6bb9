//! What the node does beside running pods: memory limits enforced, static pods, pressure, numbers, collection.

use std::{fs, time::Duration};

use serde_json::json;

use crate::fixture::{Node, Registry, SmallDisk, TestImage, bus::Bus, eventually};

/// The registry, and an image of it with a shell.
fn shell() -> (Registry, String) {
    let registry = Registry::start();
    let image = registry.push("busybox:1", &TestImage::busybox(&json!({})));
    (registry, image)
}

/// A pod whose shell runs `script`; `more` are lines of its spec, indented by two.
fn pod(name: &str, image: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}  \
         containers:\n  - name: c\n    image: {image}\n    command: [sh, -c, '{script}']\n"
    )
}

const TERMINATED: &str = "{.status.containerStatuses[0].state.terminated.reason} \
    {.status.containerStatuses[0].state.terminated.exitCode}";

#[test]
fn a_container_beyond_its_memory_is_oom_killed() {
    let (_registry, image) = shell();
    let node = Node::start();
    let script = "exec dd if=/dev/zero of=/dev/shm/full bs=1048576 count=60";
    let hungry = pod("hungry", &image, script, "  restartPolicy: Never\n");
    node.apply(&format!("{hungry}    resources: {{limits: {{memory: 24Mi}}}}\n"));
    node.wait_for("pod/hungry", "{.status.phase}", "Failed");
    assert_eq!(node.field("pod/hungry", TERMINATED), "OOMKilled 137");
    let table = node.kubectl(&["get", "pod", "hungry", "--no-headers"]).ok();
    assert_eq!(table.split_whitespace().nth(2), Some("OOMKilled"));
}

#[test]
fn pod_49_50_51_static_pods_are_their_files() {
    let (_registry, image) = shell();
    let mut node = Node::prepare(&["--stop-pods=true"]);
    let manifests = node.path("manifests");
    fs::create_dir(&manifests).unwrap();
    let file = manifests.join("web.yaml");
    let manifest = |word: &str| pod("web", &image, &format!("echo {word}; exec sleep 3600"), "");
    fs::write(&file, manifest("first")).unwrap();
    let refused =
        manifest("never").replace("name: web", "name: bad") + "    envFrom: [{secretRef: {name: s}}]\n";
    fs::write(manifests.join("bad.yaml"), refused).unwrap();
    node.add_option("--pod-manifest-path", manifests.to_str().unwrap());
    node.launch();
    let name = format!("web-{}", node.name());
    let web = format!("pod/{name}");
    let running = |node: &Node, word: &str| {
        eventually("the static pod", || {
            (node.kubectl(&["logs", &name]).out == format!("{word}\n")).then_some(())
        });
        node.wait_for(&web, "{.status.phase}", "Running");
        node.field(&web, "{.status.containerStatuses[0].containerID}")
    };
    let first = running(&node, "first");
    let config = "jsonpath={.metadata.annotations.kubernetes\\.io/config\\.source} \
        {.metadata.ownerReferences[0].kind} {.metadata.ownerReferences[0].name}";
    let said = node.kubectl(&["get", &web, "-o", config]).ok();
    assert_eq!(said, format!("file Node {}", node.name()));
    // Deleting the picture changes nothing.
    let picture = node.field(&web, "{.metadata.uid}");
    node.kubectl(&["delete", &web, "--wait=false"]).ok();
    eventually("another mirror", || {
        let now = node.field(&web, "{.metadata.uid}");
        (!now.is_empty() && now != picture).then_some(())
    });
    assert_eq!(running(&node, "first"), first);
    // POD-51: what a file may not refer to.
    assert!(node.log().contains("may not reference secrets"), "{}", node.log());
    assert_eq!(node.kubectl(&["get", "pods", "--no-headers"]).ok().lines().count(), 1);
    // An edited file is another pod, a removed file none.
    fs::write(&file, manifest("second")).unwrap();
    assert_ne!(running(&node, "second"), first);
    fs::remove_file(&file).unwrap();
    eventually("its end", || (node.kubectl(&["get", &web]).code == 1).then_some(()));
}

/// A file of the kubelet's configuration with these lines.
fn configure(node: &mut Node, lines: &str) {
    let file = node.path("kubelet.yaml");
    fs::write(
        &file,
        format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{lines}"),
    )
    .unwrap();
    node.add_option("--kubelet-config", file.to_str().unwrap());
}

#[test]
fn pod_56_who_fills_the_disk_is_evicted() {
    let (_registry, image) = shell();
    let mut node = Node::prepare(&["--stop-pods=true"]);
    configure(&mut node, "evictionHard: {nodefs.available: 24Mi}\nevictionPressureTransitionPeriod: 10s\n");
    // The disk of volumes and nothing else.
    let disk = SmallDisk::mount(&node.path("data/kubelet"), "size=64m");
    node.launch();
    let volume = "  volumes: [{name: v, emptyDir: {}}]\n";
    let mount = "    volumeMounts: [{name: v, mountPath: /v}]\n";
    let greedy = "dd if=/dev/zero of=/v/full bs=1048576 count=48; exec sleep 3600";
    node.apply(&pod("calm", &image, "exec sleep 3600", ""));
    node.wait_for("pod/calm", "{.status.phase}", "Running");
    node.apply(&format!("{}{mount}", pod("greedy", &image, greedy, volume)));
    node.wait_for("pod/greedy", "{.status.phase}", "Failed");
    assert_eq!(node.field("pod/greedy", "{.status.reason}"), "Evicted");
    let message = node.field("pod/greedy", "{.status.message}");
    let text = "The node was low on resource: ephemeral-storage. Threshold quantity: 24Mi, available: ";
    assert!(message.starts_with(text), "{message}");
    let disruption = r#"{.status.conditions[?(@.type=="DisruptionTarget")].reason}"#;
    assert_eq!(node.field("pod/greedy", disruption), "TerminationByKubelet");
    // With its volume the pressure goes, and the taint with it.
    let pressure = r#"{.items[0].status.conditions[?(@.type=="DiskPressure")].status}"#;
    node.wait_for("nodes", pressure, "True");
    node.wait_for("nodes", pressure, "False");
    assert!(disk.used() < 24 << 20);
    node.apply(&pod("next", &image, "exec sleep 3600", ""));
    node.wait_for("pod/next", "{.status.phase}", "Running");
    assert_eq!(node.field("pod/calm", "{.status.phase}"), "Running");
    assert_eq!(node.terminate(), 0, "{}", node.log());
    drop(disk);
}

#[test]
fn kubectl_top_shows_nodes_pods_and_containers() {
    let (_registry, image) = shell();
    let node = Node::start();
    node.apply(&pod("busy", &image, "while :; do :; done", ""));
    node.wait_for("pod/busy", "{.status.phase}", "Running");
    let numbers = |args: &[&str], name: &str| {
        let mut row = Vec::new();
        eventually("numbers", || {
            let said = node.kubectl(&[&["top"], args, &["--no-headers"]].concat());
            row = said.out.split_whitespace().map(str::to_owned).collect();
            (said.code == 0 && row.iter().any(|word| word == name)).then_some(())
        });
        row
    };
    let name = node.name();
    let row = numbers(&["node"], name);
    assert!(row[1].ends_with('m') && row[3].ends_with("Mi"), "{row:?}");
    // It does nothing but compute: a loaded machine may leave it little, but not nothing.
    eventually("its CPU time", || {
        let row = numbers(&["pod"], "busy");
        let used: u32 = row[1].strip_suffix('m')?.parse().ok()?;
        (used > 0 && row[2].ends_with("Mi")).then_some(())
    });
    assert_eq!(numbers(&["pod", "--containers"], "busy")[1], "c");
    // The kubelet's own numbers under upstream's names.
    let page = format!("/api/v1/nodes/{name}/proxy/metrics");
    let text = node.kubectl(&["get", "--raw", &page]).ok();
    for series in [
        "kubelet_pod_start_sli_duration_seconds_count 1",
        "kubelet_pod_start_duration_seconds_count 1",
        "kubelet_pod_worker_start_duration_seconds_count 1",
        "kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"} 1",
        "kubelet_runtime_operations_total{operation_type=\"start_container\"} 1",
        "kubelet_runtime_operations_duration_seconds_count{operation_type=\"run_podsandbox\"} 1",
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    assert!(count("kubelet_pod_status_sync_duration_seconds_count").is_some_and(|count| count > 0), "{text}");
}

#[test]
fn the_oldest_pods_that_have_ended_are_collected() {
    let (_registry, image) = shell();
    let node = Node::start_with(&["--stop-pods=true", "--terminated-pod-gc-threshold=1"]);
    for name in ["one", "two", "three"] {
        node.apply(&pod(name, &image, "true", "  restartPolicy: Never\n"));
        // A collection may come between any two of them.
        eventually("its end", || {
            let said = node.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
            (said.code != 0 || said.out == "Succeeded").then_some(())
        });
    }
    eventually("one to be left", || {
        let said = node.kubectl(&["get", "pods", "-o", "name"]).ok();
        (said.lines().count() == 1).then_some(())
    });
}

#[test]
fn hook_20_a_graceful_shutdown_says_so_in_the_status() {
    let (_registry, image) = shell();
    let mut node = Node::prepare(&["--stop-pods=true"]);
    configure(&mut node, "shutdownGracePeriod: 5s\nshutdownGracePeriodCriticalPods: 1s\n");
    node.launch();
    node.apply(&pod("p", &image, "exec sleep 3600", ""));
    node.wait_for("pod/p", "{.status.phase}", "Running");
    assert_eq!(node.terminate(), 0, "{}", node.log());
    node.launch();
    assert_eq!(node.field("pod/p", "{.status.phase} {.status.reason}"), "Failed Terminated");
    let message = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(node.field("pod/p", "{.status.message}"), message);
}

#[test]
fn a_server_that_is_asked_twice_leaves_at_once_and_its_pods_go_on() {
    let (_registry, image) = shell();
    let mut node = Node::start_with(&["--stop-pods=true"]);
    let stubborn = pod("p", &image, "trap \"\" TERM; while :; do sleep 0.1; done", "")
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 3600");
    node.apply(&stubborn);
    node.wait_for("pod/p", "{.status.phase}", "Running");
    let id = |node: &Node| node.field("pod/p", "{.status.containerStatuses[0].containerID}");
    let before = id(&node);
    assert_eq!(node.terminate_impatiently(), Some(9), "{}", node.log());
    node.launch();
    node.wait_for("pod/p", "{.status.containerStatuses[0].ready}", "true");
    assert_eq!(id(&node), before);
    node.kubectl(&["delete", "pod", "p", "--grace-period=1"]).ok();
}

#[test]
fn hook_20_a_shutdown_of_the_machine_waits_for_the_pods() {
    let (_registry, image) = shell();
    let tasks = tokio::runtime::Runtime::new().unwrap();
    let bus = tasks.block_on(Bus::start(Duration::from_secs(60)));
    let mut node = Node::prepare(&["--stop-pods=true"]);
    configure(&mut node, "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 1s\n");
    node.set_bus(bus.address());
    node.launch();
    let lock = || eventually("the lock", || (bus.locks() == ["shutdown kubelet delay"]).then_some(()));
    lock();
    // It ends when its file is there, so that the lock can be seen while it has not.
    fs::create_dir(node.path("out")).unwrap();
    let volume = format!("  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n", node.path("out").display());
    let script = "trap \"touch /v/asked; until [ -e /v/go ]; do sleep 0.1; done; exit 0\" TERM; while :; do sleep 0.1; done";
    let slow = pod("slow", &image, script, &volume)
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 25");
    node.apply(&format!("{slow}    volumeMounts: [{{name: v, mountPath: /v}}]\n"));
    node.wait_for("pod/slow", "{.status.phase}", "Running");
    tasks.block_on(bus.prepare_for_shutdown(true));
    eventually("the signal", || node.path("out/asked").exists().then_some(()));
    let ready = "{.items[0].status.conditions[?(@.type==\"Ready\")].status}";
    node.wait_for("nodes", ready, "False");
    let message = "{.items[0].status.conditions[?(@.type==\"Ready\")].message}";
    assert_eq!(node.field("nodes", message), "node is shutting down");
    node.wait_for_event(node.name(), "NodeShutdown", "Normal Shutdown manager detected shutdown event");
    // Nobody is begun any more, and the machine still waits.
    let late = format!("  nodeName: {}\n", node.name());
    node.apply(&pod("late", &image, "exec sleep 3600", &late));
    node.wait_for("pod/late", "{.status.phase} {.status.reason}", "Failed NodeShutdown");
    let rejected = "Pod was rejected: Pod was rejected as the node is shutting down.";
    assert_eq!(node.field("pod/late", "{.status.message}"), rejected);
    lock();
    fs::write(node.path("out/go"), "").unwrap();
    eventually("the machine to go on", || bus.locks().is_empty().then_some(()));
    assert_eq!(node.field("pod/slow", "{.status.phase} {.status.reason}"), "Failed Terminated");
    // Somebody has called it off.
    tasks.block_on(bus.prepare_for_shutdown(false));
    node.wait_for_event(
        node.name(),
        "NodeShutdown",
        "Normal Shutdown manager detected shutdown cancellation",
    );
    lock();
    node.wait_for("nodes", ready, "True");
    node.apply(&pod("next", &image, "exec sleep 3600", ""));
    node.wait_for("pod/next", "{.status.phase}", "Running");
}

//! Files and process: ENV-01 to ENV-03, and the security contexts.

use serde_json::json;

use super::{container, image, output, pod, start, waiting};
use crate::fixture::{Node, Registry};

#[test]
fn env_02_env_03_command_user_and_directory_come_from_pod_and_image() {
    let (registry, node, plain) = start(&[]);
    let full = image(
        &registry,
        "full",
        &json!({"Env": ["PATH=/bin"], "Entrypoint": ["/bin/echo", "entry"], "Cmd": ["cmd"], "WorkingDir": "/not/there"}),
    );
    let app = image(&registry, "app", &json!({"Env": ["PATH=/bin"], "User": "app"}));
    let echo = |name: &str, more: &str| format!("  - {{name: {name}, image: '{full}'{more}}}\n");
    let where_am_i = "echo $(cd . && pwd) $(ls -ld . | head -c 10)";
    node.apply(
        &[
            pod(
                "commands",
                "",
                &[
                    echo("neither", ""),
                    echo("args", ", args: [a, b]"),
                    echo("command", ", command: [/bin/echo, c]"),
                    echo("both", ", command: [/bin/echo, c], args: [d]"),
                    container("made", &full, where_am_i, ""),
                    container("named", &plain, where_am_i, ", workingDir: /volume/deep/er, volumeMounts: [{name: v, mountPath: /volume}]"),
                    container("user", &app, "id; echo $HOME", ""),
                ]
                .concat(),
            )
            .replace("  containers:", "  volumes: [{name: v, emptyDir: {}}]\n  containers:"),
            pod(
                "groups",
                "  securityContext: {runAsUser: 1234, runAsGroup: 99, fsGroup: 777, supplementalGroups: [888]}\n  volumes: [{name: v, emptyDir: {}}]\n",
                &[
                    container("merged", &plain, "id; touch /v/x; ls -ln /v/x", ", volumeMounts: [{name: v, mountPath: /v}]"),
                    container("root", &plain, "id -u", ", securityContext: {runAsUser: 0}"),
                ]
                .concat(),
            ),
            pod(
                "strict",
                "  securityContext: {runAsUser: 1234, supplementalGroups: [888], supplementalGroupsPolicy: Strict}\n",
                &container("c", &plain, "id -G", ""),
            ),
            pod(
                "nonroot",
                "  securityContext: {runAsNonRoot: true}\n",
                &[
                    container("root", &plain, "id", ""),
                    container("name", &app, "id", ""),
                    container("zero", &app, "id", ", securityContext: {runAsUser: 0}"),
                    container("number", &plain, "id -u", ", securityContext: {runAsUser: 7}"),
                ]
                .concat(),
            ),
        ]
        .concat(),
    );
    for (name, said) in [
        ("neither", "entry cmd\n"),
        ("args", "entry a b\n"),
        ("command", "c\n"),
        ("both", "c d\n"),
        ("made", "/not/there drwxr-xr-x\n"),
        ("named", "/volume/deep/er drwxr-xr-x\n"),
        ("user", "uid=1234(app) gid=1234(app) groups=50(extra),1234(app)\n/tmp\n"),
    ] {
        assert_eq!(output(&node, "commands", name), said, "{name}");
    }
    let merged = output(&node, "groups", "merged");
    assert!(merged.starts_with("uid=1234(app) gid=99 groups=50(extra),99,777,888\n"), "{merged}");
    assert!(merged.contains(" 1234     777 "), "{merged}");
    assert_eq!(output(&node, "groups", "root"), "0\n");
    let strict = output(&node, "strict", "c");
    let mut groups: Vec<&str> = strict.split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["1234", "888"]);
    let uid = node.field("pod/nonroot", "{.metadata.uid}");
    let subject = |name: &str| format!("(pod: \"nonroot_default({uid})\", container: {name})");
    for (name, text) in [
        ("root", "container has runAsNonRoot and image will run as root"),
        (
            "name",
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
        ),
        ("zero", "container's runAsUser breaks non-root policy"),
    ] {
        let wanted = ("CreateContainerConfigError".to_owned(), format!("{text} {}", subject(name)));
        assert_eq!(waiting(&node, "nonroot", name), wanted);
    }
    node.wait_for(
        "pod/nonroot",
        "{.status.containerStatuses[?(@.name==\"number\")].state.terminated.exitCode}",
        "0",
    );
}

/// Whether these lines are all there, in whatever order with those of the other stream.
fn has(said: &str, lines: &[&str]) -> bool {
    lines.iter().all(|line| said.lines().any(|have| have == *line))
}

/// `/proc/self/status` as `Name:value` lines.
const STATUS: &str = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";

#[test]
fn env_01_what_a_container_may_do() {
    let (_registry, node, plain) = start(&[]);
    let _in_shared_memory = tempfile::Builder::new().prefix(node.name()).tempfile_in("/dev/shm").unwrap();
    let profiles = node.path("data/kubelet/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(profiles.join("no-mkdir.json"), profile.to_string()).unwrap();
    let with = |name: &str, script: &str, context: &str| {
        container(name, &plain, script, &format!(", securityContext: {{{context}}}"))
    };
    let local = |file: &str| format!("seccompProfile: {{type: Localhost, localhostProfile: {file}}}");
    node.apply(
        &[
            pod(
                "rights",
                "  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '80'}]}\n",
                &[
                    with("readonly", "touch /x; echo $?; touch /dev/shm/x && echo shm", "readOnlyRootFilesystem: true"),
                    with("one", STATUS, "capabilities: {drop: [ALL], add: [NET_ADMIN]}, allowPrivilegeEscalation: false"),
                    with("none", STATUS, "runAsUser: 1234"),
                    with("privileged", &format!("{STATUS}; mount -t tmpfs t /tmp && echo mounted; test -e /dev/loop-control -o -e /dev/kmsg && echo devices"), "privileged: true"),
                    with("default", STATUS, "seccompProfile: {type: RuntimeDefault}"),
                    with("local", "mkdir /x; echo $?", &local("no-mkdir.json")),
                    container(
                        "plain",
                        &plain,
                        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj; ls /sys/firmware 2>/dev/null | grep -c .; test -s /proc/kcore || echo masked; echo x > /proc/sys/kernel/hostname || echo ro; ls /dev",
                        "",
                    ),
                ]
                .concat(),
            ),
            pod("missing", "", &with("c", "id", &local("missing.json"))),
            pod("unknown", "", &with("c", "id", "capabilities: {add: [NO_SUCH]}")),
            pod("unsafe", "  securityContext: {sysctls: [{name: kernel.msgmax, value: '9000'}]}\n", &container("c", &plain, "id", "")),
            pod("shared", "  shareProcessNamespace: true\n", &container("c", &plain, "ps | grep -c [/]pause", "")),
            pod(
                "hosts",
                "  hostPID: true\n  hostIPC: true\n",
                &container("c", &plain, "test $(ps | grep -c .) -gt 5 && ls -l /proc/self/ns/ipc /proc/self/ns/pid; ls /dev/shm", ""),
            ),
        ]
        .concat(),
    );
    let said = output(&node, "rights", "readonly");
    assert!(said.contains("Read-only file system") && has(&said, &["1", "shm"]), "{said}");
    let said = output(&node, "rights", "one");
    assert!(said.contains("CapEff:\t0000000000001000") && said.contains("NoNewPrivs:\t1"), "{said}");
    let said = output(&node, "rights", "none");
    assert!(
        said.contains("CapEff:\t0000000000000000") && said.contains("CapBnd:\t00000000a80425fb"),
        "{said}"
    );
    assert!(said.contains("Seccomp:\t0"), "{said}");
    let said = output(&node, "rights", "privileged");
    assert!(
        said.contains("mounted\n") && said.contains("devices\n") && said.contains("Seccomp:\t0"),
        "{said}"
    );
    assert!(output(&node, "rights", "default").contains("Seccomp:\t2"));
    let said = output(&node, "rights", "local");
    assert!(said.contains("Operation not permitted") && has(&said, &["1"]), "{said}");
    let said = output(&node, "rights", "plain");
    assert!(has(&said, &["80", "1000", "0", "masked", "ro"]), "{said}");
    let devices = ["full", "null", "random", "tty", "urandom", "zero", "shm", "mqueue", "pts"];
    assert!(has(&said, &devices), "{said}");
    let (reason, message) = waiting(&node, "missing", "c");
    assert_eq!(reason, "CreateContainerError");
    assert!(message.contains("cannot load seccomp profile") && message.contains("missing.json"), "{message}");
    assert!(waiting(&node, "unknown", "c").1.contains("CAP_NO_SUCH"));
    node.wait_for("pod/unsafe", "{.status.reason}", "SysctlForbidden");
    let shown = node.kubectl(&["get", "pod", "unsafe"]).ok();
    assert!(shown.contains("SysctlForbidden"), "{shown}");
    assert_eq!(output(&node, "shared", "c"), "1\n");
    let ours =
        |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let said = output(&node, "hosts", "c");
    assert!(said.contains(&ours("ipc")) && said.contains(&ours("pid")), "{said}");
    // The host's shared memory, and nothing of how the container was made.
    assert!(said.contains(node.name()) && !said.contains("rootfs"), "{said}");
}

#[test]
fn unsafe_sysctls_are_the_nodes_to_allow() {
    let registry = Registry::start();
    let mut node = Node::prepare(&["--stop-pods=true"]);
    let file = node.path("kubelet.yaml");
    let config = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
                  allowedUnsafeSysctls: ['kernel.msg*', net.core.somaxconn]\n";
    std::fs::write(&file, config).unwrap();
    node.add_option("--kubelet-config", &file.display().to_string());
    node.launch();
    let plain = image(&registry, "plain", &json!({"Env": ["PATH=/bin"]}));
    let with = |name: &str, sysctls: &[(&str, &str)]| {
        let list: Vec<String> =
            sysctls.iter().map(|(name, value)| format!("{{name: {name}, value: '{value}'}}")).collect();
        let spec = format!("  securityContext: {{sysctls: [{}]}}\n", list.join(", "));
        let read = "cat /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn";
        pod(name, &spec, &container("c", &plain, read, ""))
    };
    node.apply(
        &[
            with("allowed", &[("kernel.msgmax", "9000"), ("net.core.somaxconn", "300")]),
            with("other", &[("kernel.msgmax", "9000"), ("kernel.sem", "1 1 1 1")]),
        ]
        .concat(),
    );
    assert_eq!(output(&node, "allowed", "c"), "9000\n300\n");
    node.wait_for("pod/other", "{.status.reason}", "SysctlForbidden");
    let message = node.field("pod/other", "{.status.message}");
    assert!(message.contains("kernel.sem"), "{message}");
}

//! Pods whose root is nobody on the machine (`hostUsers: false`, KEP-127).

use std::{fs, os::unix::fs::MetadataExt};

use super::{container, eventually, output, pod, start};
use crate::fixture::{Node, process_of};

/// The ids of a process on the machine, by its command line.
fn ids_on_host(text: &str) -> (u32, u32) {
    let (pid, _) = eventually("the process", || process_of(text));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (id("Uid:"), id("Gid:"))
}

/// The first id that a pod has on the machine.
fn first_id(node: &Node, pod: &str) -> u32 {
    let map = node.kubectl(&["exec", pod, "-c", "c", "--", "cat", "/proc/self/uid_map"]).ok();
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[2]), (3, 0, 65_536), "{map}");
    numbers[1]
}

#[test]
fn pods_with_users_of_their_own() {
    let (_registry, mut node, plain) = start(&[]);
    let mark = node.name().to_owned();
    let features =
        node.field(&format!("node/{mark}"), "{.status.runtimeHandlers[0].features.userNamespaces}");
    let sleeper = |name: &str, spec: &str, more: &str| {
        let script = format!("while :; do sleep 0.2; done # {mark} {name}");
        pod(name, &format!("  hostUsers: false\n{spec}"), &container("c", &plain, &script, more))
    };
    if features != "true" {
        node.apply(&sleeper("first", "", ""));
        let text = "Warning Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        node.wait_for_event("first", "FailedCreatePodSandBox", text);
        return;
    }
    let host = node.path("shared");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("theirs"), "t").unwrap();
    std::os::unix::fs::chown(host.join("theirs"), Some(1234), Some(1234)).unwrap();
    let volumes = format!(
        "  securityContext: {{fsGroup: 777}}\n  volumes: [{{name: v, emptyDir: {{}}}}, {{name: m, emptyDir: {{medium: Memory}}}}, {{name: s, secret: {{secretName: s, defaultMode: 0400}}}}, {{name: h, hostPath: {{path: {}}}}}]\n",
        host.display()
    );
    let mounts = ", volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}, {name: s, mountPath: /s}, {name: h, mountPath: /h}]";
    let probe = "id -u; cd /v && touch made && ls -ln made; ls -ln /h/theirs; cat /s/k; echo; touch /m/x /h/x /dev/shm/x /etc/x && ls -lnd / /etc/x | grep -c ' 0 '; ls -ln /etc/hosts /etc/resolv.conf /bin/busybox | grep -c ' 0        0 '; hostname; echo words > /dev/termination-log; echo out > /dev/stdout; cat /proc/sys/net/core/somaxconn; mount -t tmpfs t /tmp && echo mounted";
    let rights = ", securityContext: {capabilities: {add: [SYS_ADMIN]}, appArmorProfile: {type: Unconfined}}";
    node.apply(
        &[
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hidden}\n---\n".to_owned(),
            pod(
                "probe",
                &format!("  hostUsers: false\n{volumes}"),
                &container("c", &plain, probe, &format!("{mounts}{rights}")),
            ),
            sleeper(
                "first",
                "  volumes: [{name: v, emptyDir: {}}]\n",
                ", volumeMounts: [{name: v, mountPath: /v}], securityContext: {runAsUser: 7, runAsGroup: 8}",
            ),
            sleeper("second", "  shareProcessNamespace: true\n", ""),
        ]
        .concat(),
    );
    let said = output(&node, "probe", "c");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "0", "{said}");
    assert!(lines[1].contains(" 0        777 "), "the volume's group is what the pod asked for: {said}");
    assert!(lines[2].contains(" 1234     1234 "), "files of the host look as they are: {said}");
    assert_eq!(lines[3..], ["hidden", "2", "3", "probe", "out", "4096", "mounted"], "{said}");
    let message = node.field("pod/probe", "{.status.containerStatuses[0].state.terminated.message}");
    assert_eq!(message, "words\n");
    assert_eq!(fs::metadata(host.join("x")).unwrap().uid(), 0, "what root writes there is root's");

    for name in ["first", "second"] {
        node.wait_for(&format!("pod/{name}"), "{.status.phase}", "Running");
    }
    let (first, second) = (first_id(&node, "first"), first_id(&node, "second"));
    assert!(first >= 65_536 && second >= 65_536 && first != second, "{first} {second}");
    assert_eq!(ids_on_host(&format!("{mark} first")), (first + 7, first + 8));
    assert_eq!(ids_on_host(&format!("{mark} second")), (second, second));
    let exec = |pod: &str, script: &str| node.kubectl(&["exec", pod, "--", "sh", "-c", script]).ok();
    assert_eq!(
        exec("first", "id -u; id -g; touch /v/by-exec; ls -ln /v/by-exec | head -c 10"),
        "7\n8\n-rw-r--r--"
    );
    let uid = node.field("pod/first", "{.metadata.uid}");
    let volume = node.path(&format!("data/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v"));
    let written = fs::metadata(volume.join("by-exec")).unwrap();
    assert_eq!((written.uid(), written.gid()), (7, 8), "on disk as inside");
    assert!(exec("second", "ps").contains("/pause"));

    // They keep their ids over a crash, and nobody else gets them.
    node.kill_9();
    node.launch();
    node.apply(&sleeper("third", "", ""));
    node.wait_for("pod/third", "{.status.phase}", "Running");
    assert_eq!((first_id(&node, "first"), first_id(&node, "second")), (first, second));
    let third = first_id(&node, "third");
    assert!(third != first && third != second, "{third}");

    // A runtime that cannot map the ids of mounts is not asked to.
    let of_runc = "{.status.runtimeHandlers[?(@.name==\"runc\")].features.userNamespaces}";
    if node.field(&format!("node/{mark}"), of_runc) == "false" {
        node.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: runc}\nhandler: runc\n");
        node.apply(&sleeper("foreign", "  runtimeClassName: runc\n", ""));
        let text = "Warning Failed to create pod sandbox: can't set `spec.hostUsers: false`, RuntimeClass handler \"runc\" does not support user namespaces";
        node.wait_for_event("foreign", "FailedCreatePodSandBox", text);
    }
}

/// A node that can do it, with its image and registry; none where the kernel or the runtime cannot.
fn start_able() -> Option<(crate::fixture::Registry, Node, String)> {
    let (registry, node, plain) = start(&[]);
    let features = "{.status.runtimeHandlers[0].features.userNamespaces}";
    (node.field(&format!("node/{}", node.name()), features) == "true").then_some((registry, node, plain))
}

#[test]
fn volumes_and_rights_of_pods_with_users_of_their_own() {
    let Some((_registry, node, plain)) = start_able() else { return };
    let volumes = "  volumes: [{name: e, emptyDir: {}}, {name: c, configMap: {name: c, items: [{key: k, path: deep/k}]}}, {name: p, projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: token}}, {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]}}]\n";
    let mounts = ", volumeMounts: [{name: e, mountPath: /e}, {name: c, mountPath: /c}, {name: p, mountPath: /p}, {name: e, mountPath: /sub, subPath: made}]";
    let content = "cat /c/deep/k /p/k /p/name; echo; stat -Lc '%u %g %a' /c/deep/k /p/token /p/k /p/name; touch /e/x /sub/y && stat -c '%u %g' /e/x /sub/y; echo no > /p/k || echo kept";
    let mighty = "id -u; mount -t tmpfs t /tmp && echo mounted; hostname changed && hostname; grep -c ' /proc/' /proc/mounts; echo 1 > /proc/sys/kernel/core_uses_pid || echo refused; touch /e/x && echo written";
    let unmasked = "grep -c ' /proc/' /proc/mounts; unshare -Urpf --mount-proc true && echo own";
    node.apply(
        &[
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: v}\n---\n".to_owned(),
            pod(
                "content",
                &format!("  hostUsers: false\n  securityContext: {{runAsUser: 1000, fsGroup: 777}}\n{volumes}"),
                &container("c", &plain, content, mounts),
            ),
            pod(
                "mighty",
                &format!("  hostUsers: false\n{volumes}"),
                &container("c", &plain, mighty, &format!("{mounts}, securityContext: {{privileged: true}}")),
            ),
            pod(
                "unmasked",
                "  hostUsers: false\n",
                &container("c", &plain, unmasked, ", securityContext: {procMount: Unmasked, capabilities: {add: [SYS_ADMIN]}, appArmorProfile: {type: Unconfined}}"),
            ),
        ]
        .concat(),
    );
    // Both streams are in one log: their order is nobody's.
    let lines = |pod: &str| -> Vec<String> {
        output(&node, pod, "c").lines().filter(|line| !line.starts_with("sh: ")).map(str::to_owned).collect()
    };
    assert_eq!(
        lines("content"),
        ["vvcontent", "0 777 644", "0 777 640", "0 777 644", "0 777 644", "1000 777", "1000 777", "kept"]
    );
    // Root in its own namespaces, nobody on the machine.
    assert_eq!(lines("mighty"), ["0", "mounted", "changed", "0", "refused", "written"]);
    assert_eq!(lines("unmasked"), ["0", "own"]);
}

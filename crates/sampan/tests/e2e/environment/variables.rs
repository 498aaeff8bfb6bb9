//! Variables and last words: ENV-04, ENV-05, ENV-18 to ENV-23, ENV-27 to ENV-45.

use serde_json::json;

use super::{container, eventually, output, pod, start, waiting};

/// A variable from a field, as an entry of `env`.
fn field(name: &str, path: &str) -> String {
    format!("{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}")
}

fn resource(name: &str, resource: &str, more: &str) -> String {
    format!("{{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {resource}{more}}}}}}}")
}

/// All keys, and all keys with a prefix.
const FROM: &str = "envFrom: [{prefix: P_, configMapRef: {name: cm}}, {configMapRef: {name: cm}}]";

#[test]
fn env_18_to_43_where_variables_come_from() {
    let (_registry, node, plain) = start(&[]);
    let objects = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {A: config, 1odd.key: odd, B: '$(A)'}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: sec}\nstringData: {A: secret, S: hidden}\n---\n";
    let env = [
        field("NAME", "metadata.name"),
        field("NAMESPACE", "metadata.namespace"),
        field("UID_", "metadata.uid"),
        field("NODE", "spec.nodeName"),
        field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        field("HOST_IPS", "status.hostIPs"),
        field("POD_IP", "status.podIP"),
        field("POD_IPS", "status.podIPs"),
        field("LABEL", "metadata.labels['l']"),
        field("ANNOTATION", "metadata.annotations['a/b']"),
        field("ABSENT", "metadata.labels['no']"),
        resource("CPU", "limits.cpu", ""),
        resource("MILLI", "limits.cpu, divisor: 1m", ""),
        resource("MEMORY", "limits.memory, divisor: 1Mi", ""),
        resource("OTHER", "requests.cpu, divisor: 1m", ", containerName: plain"),
        "{name: BOTH, value: pod}".to_owned(),
        "{name: A, value: '$(A)-own'}".to_owned(),
        "{name: LATER, value: '$(LAST) $(NAME) $$(NAME) $(B)'}".to_owned(),
        "{name: LAST, value: x}".to_owned(),
        "{name: LAST, value: 'y $(KUBERNETES_SERVICE_PORT)'}".to_owned(),
        "{name: OPTIONAL, valueFrom: {configMapKeyRef: {name: gone, key: k, optional: true}}}".to_owned(),
        "{name: SECRET, valueFrom: {secretKeyRef: {name: sec, key: S}}}".to_owned(),
    ];
    let everything = format!(
        ", env: [{}], envFrom: [{{prefix: P_, configMapRef: {{name: cm}}}}, {{configMapRef: {{name: cm}}}}, {{secretRef: {{name: sec}}}}, {{secretRef: {{name: gone, optional: true}}}}], resources: {{limits: {{cpu: 250m, memory: 64Mi}}}}, args: [sh, '$(NAME) $$(NAME) $(NOPE)']",
        env.join(", ")
    );
    let file = |key: &str, optional: bool| {
        format!(
            ", env: [{{name: X, valueFrom: {{fileKeyRef: {{volumeName: v, path: vars.env, key: \"{key}\", optional: {optional}}}}}}}]"
        )
    };
    let init = container(
        "write",
        &plain,
        "printf \"# made\\nTOKEN='two\\nlines'\\n\" > /v/vars.env",
        ", volumeMounts: [{name: v, mountPath: /v}]",
    );
    let missing = |name: &str, env: &str| container(name, &plain, "env", &format!(", {env}"));
    node.apply(
        &[
            objects.to_owned(),
            pod(
                "vars",
                "",
                &[
                    container("c", &plain, "env; echo \"arg $1\"", &everything),
                    format!(
                        "  - {{name: keys, image: '{plain}', command: [env], env: [{{name: ZZ, value: z}}], {FROM}}}\n"
                    ),
                    container(
                        "plain",
                        &plain,
                        "env",
                        &format!(
                            ", env: [{}, {}]",
                            resource("CPUS", "limits.cpu", ""),
                            resource("NONE", "requests.memory", "")
                        ),
                    ),
                ]
                .concat(),
            )
            .replace(
                "metadata: {name: vars}",
                "metadata: {name: vars, labels: {l: v1}, annotations: {a/b: v2}}",
            ),
            pod(
                "files",
                &format!("  volumes: [{{name: v, emptyDir: {{}}}}]\n  initContainers:\n{init}"),
                &[
                    container("c", &plain, "echo \"$X\"", &file("TOKEN", false)),
                    container("optional", &plain, "echo \"[$X]\"", &file("NO", true)),
                    container("missing", &plain, "env", &file("NO", false)),
                ]
                .concat(),
            ),
            pod(
                "broken",
                "",
                &[
                    missing("config", "envFrom: [{configMapRef: {name: later}}]"),
                    missing("secret", "envFrom: [{secretRef: {name: gone}}]"),
                    missing("key", "env: [{name: X, valueFrom: {configMapKeyRef: {name: cm, key: nokey}}}]"),
                    missing(
                        "container",
                        &format!("env: [{}]", resource("X", "limits.cpu", ", containerName: nobody")),
                    ),
                ]
                .concat(),
            ),
        ]
        .concat(),
    );
    let said = output(&node, "vars", "c");
    let has = |line: &str| assert!(said.lines().any(|have| have == line), "{line} in {said}");
    let of = |path: &str| node.field("pod/vars", path);
    for (name, value) in [
        // ENV-18
        ("NAME", "vars".to_owned()),
        ("NAMESPACE", "default".to_owned()),
        ("UID_", of("{.metadata.uid}")),
        ("NODE", node.name().to_owned()),
        ("ACCOUNT", "default".to_owned()),
        ("HOST_IP", "127.0.0.1".to_owned()),
        ("HOST_IPS", "127.0.0.1".to_owned()),
        ("POD_IP", of("{.status.podIP}")),
        ("POD_IPS", of("{.status.podIP}")),
        ("LABEL", "v1".to_owned()),
        ("ANNOTATION", "v2".to_owned()),
        ("ABSENT", String::new()),
        // ENV-21, ENV-22, ENV-27
        ("CPU", "1".to_owned()),
        ("MILLI", "250".to_owned()),
        ("MEMORY", "64".to_owned()),
        ("OTHER", "0".to_owned()),
        // ENV-04: the pod's wins over the image's; ENV-37, ENV-41: the last source wins, every key is used, with its prefix.
        ("BOTH", "pod".to_owned()),
        ("A", "secret-own".to_owned()),
        ("P_A", "config".to_owned()),
        ("SECRET", "hidden".to_owned()),
        // ENV-38, ENV-39: what comes later is not known yet; sources are not expanded again.
        ("LATER", "$(LAST) vars $(NAME) $(A)".to_owned()),
        ("LAST", "y 443".to_owned()),
    ] {
        has(&format!("{name}={value}"));
    }
    // A shell would leave such names out.
    let keys = output(&node, "vars", "keys");
    assert!(keys.contains("\n1odd.key=odd\n") && keys.contains("\nP_1odd.key=odd\n"), "ENV-41: {keys}");
    // ENV-30, ENV-33: the one Service that every pod knows.
    has("KUBERNETES_SERVICE_PORT_HTTPS=443");
    // ENV-40
    has("arg vars $(NAME) $(NOPE)");
    assert!(!said.contains("OPTIONAL"), "{said}");
    // ENV-23: no limit is all that the node has, no request is nothing.
    let said = output(&node, "vars", "plain");
    let cpus = node.field(&format!("node/{}", node.name()), "{.status.allocatable.cpu}");
    assert!(said.contains(&format!("CPUS={cpus}\n")) && said.contains("NONE=0\n"), "{said}");

    let (reason, message) = waiting(&node, "files", "missing");
    assert_eq!(reason, "CreateContainerConfigError");
    assert_eq!(message, "environment variable key \"NO\" not found in file \"vars.env\"", "ENV-43");
    let printed = |pod: &str, container: &str| {
        eventually(&format!("{container} to end"), || {
            let path =
                format!("{{.status.containerStatuses[?(@.name==\"{container}\")].state.terminated.reason}}");
            (node.field(&format!("pod/{pod}"), &path) == "Completed").then_some(())
        });
        node.kubectl(&["logs", pod, "-c", container]).ok()
    };
    assert_eq!(printed("files", "c"), "two\nlines\n", "ENV-43");
    assert_eq!(printed("files", "optional"), "[]\n", "ENV-43");
    for (name, text) in [
        ("config", "configmap \"later\" not found"),
        ("secret", "secret \"gone\" not found"),
        ("key", "couldn't find key nokey in ConfigMap default/cm"),
        ("container", "container nobody not found"),
    ] {
        let wanted = ("CreateContainerConfigError".to_owned(), text.to_owned());
        assert_eq!(waiting(&node, "broken", name), wanted, "ENV-27, ENV-42");
    }
    node.wait_for_event("broken", "Failed", "Warning Error: configmap \"later\" not found");
    node.kubectl(&["create", "configmap", "later", "--from-literal=L=8"]).ok();
    assert!(printed("broken", "config").contains("L=8\n"), "ENV-42: it recovers");
}

#[test]
fn env_05_env_44_env_45_restarts_read_again_and_last_words_are_kept() {
    let (_registry, node, plain) = start(&[]);
    let again = "echo run $V; test $V = new && exec sleep 600; until test -e /v/go; do sleep 0.1; done; rm /v/go; exit 1";
    let many = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 3";
    let fallback = ", terminationMessagePolicy: FallbackToLogsOnError";
    let last = |name: &str, script: &str, more: &str| container(name, &plain, script, more);
    let fill = "i=0; while [ $i -lt 600 ]; do printf 0123456789; i=$((i+1)); done > /dev/termination-log";
    let filled: String = (0..4).map(|n| last(&format!("c{n}"), fill, "")).collect();
    node.apply(
        &[
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {V: old}\n---\n".to_owned(),
            pod(
                "again",
                "  volumes: [{name: v, emptyDir: {}}]\n",
                &container(
                    "c",
                    &plain,
                    again,
                    ", envFrom: [{configMapRef: {name: cm}}], volumeMounts: [{name: v, mountPath: /v}]",
                ),
            )
            .replace("restartPolicy: Never", "restartPolicy: Always"),
            pod(
                "words",
                "",
                &[
                    last("file", "echo hello; printf bye > /dev/termination-log; exit 2", fallback),
                    last(
                        "path",
                        "printf there > /tmp/words",
                        ", terminationMessagePath: /tmp/words, securityContext: {runAsUser: 1234}",
                    ),
                    last("log", many, fallback),
                    last("fine", "echo hello", fallback),
                    last("silent", "echo hello; exit 1", ""),
                    last("mode", "ls -l /dev/termination-log | head -c 10 > /dev/termination-log", ""),
                ]
                .concat(),
            ),
            pod("large", "", &filled),
            pod("one", "", &last("c", fill, "")),
        ]
        .concat(),
    );
    let message = |pod: &str, container: &str| {
        eventually(&format!("the end of {pod}"), || {
            let phase = node.field(&format!("pod/{pod}"), "{.status.phase}");
            ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(())
        });
        let path =
            format!("{{.status.containerStatuses[?(@.name==\"{container}\")].state.terminated.message}}");
        node.field(&format!("pod/{pod}"), &path)
    };
    assert_eq!(message("words", "file"), "bye", "ENV-45: the file wins");
    assert_eq!(message("words", "path"), "there", "ENV-44");
    let log = message("words", "log");
    assert!(log.starts_with("line 120\n") && log.ends_with("line 199\n"), "ENV-45: 80 lines: {log}");
    assert_eq!(message("words", "fine"), "", "ENV-45: it went well");
    assert_eq!(message("words", "silent"), "", "ENV-45: nobody asked");
    assert_eq!(message("words", "mode"), "-rw-rw-rw-", "ENV-44");
    assert_eq!(message("one", "c").len(), 4096, "ENV-44: the end of it");
    assert_eq!(message("large", "c3").len(), 12 * 1024 / 4, "ENV-44: 12 KiB for all");

    node.wait_for("pod/again", "{.status.phase}", "Running");
    node.kubectl(&["patch", "configmap", "cm", "-p", "{\"data\": {\"V\": \"new\"}}"]).ok();
    assert_eq!(
        node.kubectl(&["exec", "again", "--", "env"]).ok().lines().find(|line| line.starts_with("V=")),
        Some("V=old")
    );
    node.kubectl(&["exec", "again", "--", "touch", "/v/go"]).ok();
    eventually("the second run", || (node.kubectl(&["logs", "again"]).out == "run new\n").then_some(()));
}

#[test]
fn env_34_an_environment_too_large_names_the_service_links() {
    let (_registry, node, plain) = start(&[]);
    // Links of two megabytes in few Services: long names, many ports.
    let services = (0..40).map(|n| {
        let ports = (1..=100).map(|port| json!({"name": format!("{}{port:03}", "p".repeat(60)), "port": port}));
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{}{n:02}", "s".repeat(61))},
            "spec": {"ports": ports.collect::<Vec<_>>()}})
    });
    let all = json!({"apiVersion": "v1", "kind": "List", "items": services.collect::<Vec<_>>()});
    node.with_manifest(&["create"], &all.to_string()).ok();
    node.apply(
        &[
            pod("linked", "", &container("c", &plain, "true", "")),
            pod("unlinked", "  enableServiceLinks: false\n", &container("c", &plain, "env", "")),
        ]
        .concat(),
    );
    let (reason, message) = waiting(&node, "linked", "c");
    assert_eq!(reason, "CreateContainerConfigError");
    assert!(
        message.starts_with("the environment is too large: ")
            && message.contains("are the links to the Services of the namespace")
            && message.contains("enableServiceLinks: false"),
        "{message}"
    );
    let said = output(&node, "unlinked", "c");
    assert!(said.contains("KUBERNETES_SERVICE_HOST=") && !said.contains("SSS_PORT"), "{said}");
}

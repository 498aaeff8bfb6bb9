//! Names: ENV-06 to ENV-15, and what a pod on the host's network finds (ENV-20).

use super::{container, output, pod, start};

#[test]
fn env_06_to_15_and_20_who_a_pod_is() {
    let (_registry, node, plain) = start(&[]);
    let names = "hostname; hostname -f; cat /etc/hosts";
    let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
    let alias = "  hostAliases: [{ip: 192.0.2.7, hostnames: [one.example, two.example]}]\n";
    let fields = ", env: [{name: H, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: P, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]";
    let mounted = ", volumeMounts: [{name: v, mountPath: /etc/hosts, subPath: hosts}]";
    node.apply(
        &[
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own}\ndata: {hosts: 'own file'}\n---\n"
                .to_owned(),
            pod(
                "plain",
                alias,
                &container(
                    "c",
                    &plain,
                    &format!("{names}; ls -l /etc/hosts; echo 1.2.3.4 more >> /etc/hosts && echo written"),
                    "",
                ),
            ),
            pod("named", "  hostname: web\n", &container("c", &plain, "hostname", "")),
            pod(&long, "", &container("c", &plain, "hostname", "")),
            pod("sub", "  hostname: web\n  subdomain: pods\n", &container("c", &plain, names, "")),
            pod(
                "full",
                "  subdomain: pods\n  setHostnameAsFQDN: true\n",
                &container("c", &plain, "hostname", ""),
            ),
            pod("alone", "  setHostnameAsFQDN: true\n", &container("c", &plain, "hostname", "")),
            pod(
                "override",
                "  hostnameOverride: any.name.example\n  subdomain: pods\n",
                &container("c", &plain, "hostname", ""),
            ),
            pod(
                "host",
                &format!("  hostNetwork: true\n  hostname: ignored\n{alias}"),
                &container("c", &plain, "hostname; echo $H $P; cat /etc/hosts", fields),
            ),
            pod(
                "mounts",
                "  volumes: [{name: v, configMap: {name: own}}]\n",
                &container("c", &plain, "cat /etc/hosts", mounted),
            ),
            pod(
                &"x".repeat(50),
                "  subdomain: pods\n  setHostnameAsFQDN: true\n",
                &container("c", &plain, "hostname", ""),
            ),
        ]
        .concat(),
    );
    let ip = |pod: &str| node.field(&format!("pod/{pod}"), "{.status.podIP}");
    let said = output(&node, "plain", "c");
    let managed = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
    let aliases = "\n# Entries added by HostAliases.\n192.0.2.7\tone.example\ttwo.example\n";
    let wanted = format!("plain\nplain\n{managed}{}\tplain\n{aliases}-rw-r--r--", ip("plain"));
    assert!(said.starts_with(&wanted), "ENV-06, ENV-13, ENV-14: {said}");
    assert!(said.ends_with("written\n"), "{said}");
    assert_eq!(output(&node, "named", "c"), "web\n", "ENV-07");
    assert_eq!(output(&node, &long, "c"), format!("{}\n", "a".repeat(62)), "ENV-07: cut, without the dash");
    let said = output(&node, "sub", "c");
    let full = "web.pods.default.svc.cluster.local";
    assert!(said.starts_with(&format!("web\n{full}\n")), "ENV-08: {said}");
    assert!(said.ends_with(&format!("{}\t{full}\tweb\n", ip("sub"))), "{said}");
    assert_eq!(output(&node, "full", "c"), "full.pods.default.svc.cluster.local\n", "ENV-09");
    assert_eq!(output(&node, "alone", "c"), "alone\n", "ENV-09: without a subdomain");
    assert_eq!(output(&node, "override", "c"), "any.name.example\n", "ENV-11");
    let said = output(&node, "host", "c");
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(
        said.starts_with(&format!(
            "{machine}127.0.0.1 127.0.0.1\n# Kubernetes-managed hosts file (host network).\n"
        )),
        "ENV-12, ENV-15, ENV-20: {said}"
    );
    assert!(said.ends_with(aliases), "ENV-14: {said}");
    assert_eq!(output(&node, "mounts", "c"), "own file", "ENV-15");
    let too_long = format!("{}.pods.default.svc.cluster.local", "x".repeat(50));
    node.wait_for_event(
        &"x".repeat(50),
        "FailedCreatePodSandBox",
        &format!(
            "Warning Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN {too_long} is too long (64 characters is the max, {} characters requested)",
            too_long.len()
        ),
    );
    let refused = |spec: &str| {
        let manifest = pod(
            "refused",
            spec,
            &container("c", &plain, "id", ", ports: [{containerPort: 80, hostPort: 81}]"),
        );
        node.with_manifest(&["create"], &manifest).fails()
    };
    let error = refused("  hostnameOverride: a\n  setHostnameAsFQDN: true\n");
    assert!(error.contains("may not be specified when setHostnameAsFQDN is true"), "ENV-11: {error}");
    let error = refused("  hostnameOverride: a\n  hostNetwork: true\n");
    assert!(error.contains("may not be specified when hostNetwork is true"), "ENV-11: {error}");
    assert!(error.contains("must match `containerPort` when `hostNetwork` is true"), "ENV-12: {error}");
    assert!(refused("  hostname: Not_A_Label\n").contains("spec.hostname: Invalid value"), "ENV-07");
}
